"""Word vectors: words and phrases as vectors, nearest words, and analogies.

Words that occur near the same words get similar vectors (Mikolov et al. 2013, word2vec; Pennington, Socher & Manning
2014, GloVe). A phrase is a weighted mean of its words. Frequent words such as "a" and "of" weigh little: the weight is
a / (a + p), where p is the word's frequency (Arora, Liang & Ma 2017, A simple but tough-to-beat baseline for sentence
embeddings). Files of word vectors have no frequencies, but list the most frequent words first, so p is estimated from
the row by Zipf's law. With equal weights, "a photo of a scorpion" is little more than "a" and "of".
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from helpers.features import word_files
from helpers.features.word_list import WordList
from helpers.images import imagenet
from helpers.text import printable
from helpers.vectors import l2_normalize

#: The longest text that is read, in characters.
LONGEST = 1000
#: Arora, Liang & Ma's a; the results are the same from 1e-4 to 1e-2.
FREQUENCY_WEIGHT = 1e-3

_SEPARATORS = re.compile(r"[\s,;:/|()\[\]{}<>\"“”«»„!?…—–*#=~]+")
_EDGES = "._-'`+&"
_JOINTS = re.compile(r"[_\-.+&']+")
#: Ending of a plural → endings of its singular.
_PLURALS = {"ies": ("y", "ie"), "ves": ("f", "fe"), "es": ("", "e", "is"), "s": ("",), "men": ("man",)}


class TextError(ValueError):
    """A text cannot be used as a query; the message says why."""


class UnknownWords(TextError):
    """None of a text's words has a vector; the message has the nearest known spellings."""


class Neighbor(NamedTuple):
    """A word and the cosine of its vector to the query's."""

    word: str
    score: float


@dataclass(frozen=True, eq=False)
class Phrase:
    """A text and its vector.

    text : as it was given.
    words : the known words, as they are in the list.
    ignored : words without a vector.
    vector : float32 (dim,), the weighted mean of the words' vectors; not normalized.
    """

    text: str
    words: tuple[str, ...]
    ignored: tuple[str, ...]
    vector: np.ndarray

    def __str__(self) -> str:
        note = f" (ignored, because they have no vector: {', '.join(map(printable, self.ignored))})"
        return " + ".join(map(printable, self.words)) + (note if self.ignored else "")


class WordVectors:
    """Words with their vectors. Open them by `glove` or `from_file`.

    Parameters
    ----------
    words : the words, the most frequent one first.
    vectors : float32 (n, dim), not changed; may be memory-mapped.
    name : for messages.
    frequency_weight : Arora, Liang & Ma's a; None for equal weights.
    """

    def __init__(
        self, words: WordList, vectors: np.ndarray, name: str, frequency_weight: float | None = FREQUENCY_WEIGHT
    ):
        if vectors.ndim != 2 or len(vectors) != len(words) or not len(words) or not vectors.shape[1]:
            raise ValueError(f"{name}: {len(words)} words need vectors ({len(words)}, dim), got {vectors.shape}")
        if frequency_weight is not None and not frequency_weight > 0:
            raise ValueError(f"frequency_weight must be positive or None, got {frequency_weight}")
        self.words, self.vectors, self.name = words, vectors, name
        self.frequency_weight = frequency_weight
        self.dim = vectors.shape[1]

    @classmethod
    def glove(cls, frequency_weight: float | None = FREQUENCY_WEIGHT) -> Self:
        """GloVe 6B with 50 numbers, see `helpers.features.word_files.glove`."""
        return cls(*word_files.glove(), "glove-6b-50", frequency_weight)

    @classmethod
    def from_file(cls, path: str | Path, frequency_weight: float | None = FREQUENCY_WEIGHT) -> Self:
        """A text file of GloVe, word2vec or fastText, see `helpers.features.word_files.read_text`."""
        return cls(*word_files.read_text(path), Path(path).name, frequency_weight)

    def __len__(self) -> int:
        return len(self.words)

    # ---- words and phrases ----------------------------------------------------------------------------

    def vector(self, word: str) -> np.ndarray:
        """float32 (dim,): the vector of one word. Raises `UnknownWords`."""
        row = self._known(word)
        if row is None:
            raise UnknownWords(self._unknown(word, [word]))
        return np.array(self.vectors[row], np.float32)

    def phrase(self, text: str) -> Phrase:
        """Find the words of a text, such as "sea horses", "joshua_tree", "high-speed train" or "n02084071".

        A word is searched as it is, in lower case, in the singular, and without accents; a compound that is not in the
        list is divided at hyphens and underscores. A WordNet ID of ImageNet stands for the name of its class.

        Raises `TextError` for an empty text and one of more than `LONGEST` characters, and `UnknownWords`.
        """
        rows, ignored = self._find(text)
        if not rows:
            raise UnknownWords(self._unknown(text, ignored))
        return Phrase(text, tuple(self.words[row] for row in rows), tuple(ignored), self._mean(rows))

    def embed_text(self, text: str) -> np.ndarray:
        """float32 (dim,): the vector of a phrase, of length 1. Raises as `phrase`."""
        return l2_normalize(self.phrase(text).vector[None])[0]

    def embed_names(self, names: Sequence[str]) -> np.ndarray:
        """float32 (m, dim): `embed_text` of each name; zeros where none of its words is known."""
        found = np.zeros((len(names), self.dim), np.float32)
        for number, name in enumerate(names):
            rows, _ = self._find(name)
            if rows:
                found[number] = self._mean(rows)
        return l2_normalize(found)

    def spellings(self, word: str, count: int = 3) -> list[str]:
        """Known words with at most two typing errors, the nearest first, see `WordList.spellings`."""
        return self.words.spellings(word.lower()[:LONGEST], count)

    def _find(self, text: str) -> tuple[list[int], list[str]]:
        """The rows of the known words of a text, and its other words."""
        parts = [part for token in _tokens(text) for part in self._parts(token)]
        return [row for _, row in parts if row is not None], [word for word, row in parts if row is None]

    def _mean(self, rows: Sequence[int]) -> np.ndarray:
        """float32 (dim,): the weighted mean of the vectors of some words."""
        places = np.array(rows)
        weights = np.ones(len(rows))
        if self.frequency_weight is not None:
            frequency = 1 / ((places + 1) * self._harmonic)
            weights = self.frequency_weight / (self.frequency_weight + frequency)
        vectors = np.asarray(self.vectors[places], np.float64)
        return (weights @ vectors / weights.sum()).astype(np.float32)

    def _known(self, word: str) -> int | None:
        """The row of a word or of its singular."""
        for form in _forms(word):
            [row] = self.words.find([form])
            if row >= 0:
                return int(row)
        return None

    def _parts(self, token: str) -> list[tuple[str, int | None]]:
        row = self._known(token)
        parts = [part for part in _JOINTS.split(token.removesuffix("'s")) if part]
        if row is not None or len(parts) < 2:
            return [(token, row)]
        return [(part, self._known(part)) for part in parts]

    @cached_property
    def _harmonic(self) -> float:
        """Sum of 1 / row, so that the estimated frequencies sum to 1."""
        return float((1 / np.arange(1, len(self) + 1)).sum())

    def _unknown(self, text: str, words: Sequence[str]) -> str:
        shown = printable(text if len(text) <= 60 else text[:59] + "…")
        if not words:
            return f"{shown!r} contains no word. Give at least one, such as cat."
        near = {word: self.spellings(word) for word in list(dict.fromkeys(words))[:5]}
        hints = [f"{printable(word)!r}: {', '.join(map(repr, known))}" for word, known in near.items() if known]
        hint = f" Known words with a similar spelling: {'; '.join(hints)}." if hints else ""
        return f"none of the words of {shown!r} has a vector in {self.name}.{hint} Try other words."

    # ---- word → words ---------------------------------------------------------------------------------

    def nearest(
        self, query: str | np.ndarray, k: int = 10, *, exclude: Sequence[str] = (), most_frequent: int | None = None
    ) -> list[Neighbor]:
        """The words with the highest cosine to a text or a vector (dim,), the best first.

        The words of a text are left out of the results.

        exclude : other words that are left out of the results.
        most_frequent : search only the first words of the list, which leaves out rare ones.
        """
        if isinstance(query, str):
            phrase = self.phrase(query)
            query, exclude = phrase.vector, [*exclude, *phrase.words]
        query = np.asarray(query, np.float32)
        if query.shape != (self.dim,) or not np.isfinite(query).all() or not query.any():
            raise ValueError(f"a query must be a finite vector ({self.dim},) that is not zero, got {query.shape}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        size = min(len(self), most_frequent or len(self))
        scores = (self.vectors[:size] @ (query / np.linalg.norm(query))) / self._norms[:size]
        left_out = self.words.find(list(exclude)) if exclude else np.empty(0, np.int64)
        scores[left_out[(left_out >= 0) & (left_out < size)]] = -np.inf
        width = min(k, size)
        # Sorted by score, then by row, also where the selection cuts equal scores.
        threshold = np.partition(scores, size - width)[size - width]
        rows = np.flatnonzero(scores >= threshold)
        rows = rows[np.lexsort((rows, -scores[rows]))][:width]
        return [Neighbor(self.words[int(row)], float(scores[row])) for row in rows if np.isfinite(scores[row])]

    def analogy(self, a: str, b: str, c: str, k: int = 5, *, exclude_inputs: bool = True) -> list[Neighbor]:
        """Words d such that ``a`` is to ``b`` as ``c`` is to d: the nearest ones to b − a + c (Mikolov et al. 2013).

        The vectors have length 1 before they are added.

        exclude_inputs : whether a, b and c are left out of the results. Otherwise, the result is mostly b or c itself.
        """
        first, second, third = (self.phrase(text) for text in (a, b, c))
        units = l2_normalize(np.stack([first.vector, second.vector, third.vector]))
        inputs = [*first.words, *second.words, *third.words] if exclude_inputs else []
        return self.nearest(units[1] - units[0] + units[2], k, exclude=inputs)

    @cached_property
    def _norms(self) -> np.ndarray:
        """float32 (n,): the length of each vector; 1 for a zero vector."""
        norms = np.sqrt(np.einsum("ij,ij->i", self.vectors, self.vectors))
        return np.where(norms > 0, norms, 1).astype(np.float32)


def _tokens(text: str) -> list[str]:
    """The words of a text, with hyphens and underscores in them."""
    if len(text) > LONGEST:
        raise TextError(f"the text has {len(text):,} characters; at most {LONGEST:,} are allowed")
    if not text.strip():
        raise TextError("the text is empty")
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    tokens: list[str] = []
    for token in _SEPARATORS.split(text):
        name = imagenet.classes().get(token.lower()) if imagenet.WNID.fullmatch(token.lower()) else None
        tokens += _tokens(name) if name else [token.strip(_EDGES)]
    return [token for token in tokens if token]


def _forms(word: str) -> Iterator[str]:
    """Spellings of a word that may be in the list: as it is, in lower case, with hyphens, singular, without accents."""
    yield word
    word = word.lower()
    yield word
    if "_" in word:
        yield word.replace("_", "-")
    word = word.removesuffix("'s").removesuffix("'")
    yield word
    for ending, singulars in _PLURALS.items():
        if word.endswith(ending) and len(word) > len(ending) + 2:
            for singular in singulars:
                yield word.removesuffix(ending) + singular
    plain = "".join(each for each in unicodedata.normalize("NFKD", word) if not unicodedata.combining(each))
    if plain != word:
        yield plain
