"""Combined queries: several images and texts with weights, such as an image without what a word names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.features.text import LONGEST, TextError
from helpers.features.text_encoder import NoTextEncoder, text_encoder
from helpers.search.engine import Engine
from helpers.search.index import IdSet, check_k
from helpers.search.index.filters import Filter, keep, union
from helpers.search.ranking import PAD, Ranking, best_first
from helpers.search.rerank import feedback
from helpers.search.word_index import GalleryWords
from helpers.vectors import l2_normalize

#: At least this many of the best results of each kind of part get a combined score.
DEPTH = 1000

#: A word to leave out: a hyphen or a minus sign in front of it.
_SUBTRACTED = re.compile(r"[-−].")


@dataclass(frozen=True, eq=False)
class QueryPart:
    """One part of a query: an image's feature vector, or a text.

    Attributes
    ----------
    weight : its share of the score; negative for what results must not resemble.
    vector : float (dim,), by the engine's extractor; None for a text.
    text : None for an image.
    """

    weight: float = 1.0
    vector: np.ndarray | None = None
    text: str | None = None

    def __post_init__(self):
        if (self.vector is None) == (self.text is None):
            raise ValueError("a part of a query is either a vector or a text")
        if not np.isfinite(self.weight) or self.weight == 0:
            raise ValueError(f"the weight of a part of a query must be a number other than 0, got {self.weight}")


def marked_parts(good: np.ndarray, bad: np.ndarray) -> list[QueryPart]:
    """Results that a user marked as parts of a query, with the weights of Rocchio's means: (n, dim) and (m, dim)."""
    groups = ((feedback.GOOD, good), (-feedback.BAD, bad))
    return [QueryPart(weight / len(vectors), vector) for weight, vectors in groups for vector in vectors]


class TextUnsupported(ValueError):
    """The engine cannot be searched by text; the message has the remedy."""


def parse_text(text: str) -> list[QueryPart]:
    """The parts of a text: "boat at night -people" is "boat at night" with weight 1 and "people" with weight -1.

    A word with a hyphen or a minus sign in front of it is subtracted; the other words are one part. A text without a
    word has no part.

    Raises `TextError` for more than `LONGEST` characters.
    """
    if len(text) > LONGEST:
        raise TextError(f"the text has {len(text):,} characters; at most {LONGEST:,} are allowed")
    words = text.split()
    added = " ".join(word for word in words if not _SUBTRACTED.match(word))
    subtracted = [QueryPart(-1, text=word[1:]) for word in words if _SUBTRACTED.match(word)]
    return [*([QueryPart(text=added)] if added else []), *subtracted]


def check_metric(engine: Engine) -> None:
    """Raise TextUnsupported unless the engine's index has cosines."""
    if engine.index.metric != "cosine":
        raise TextUnsupported(
            f"Texts and combined queries need cosines, but this index has {engine.index.metric} distances. "
            "Index the images with a backend of metric cosine, such as exact:cosine."
        )


def search_parts(
    engine: Engine, parts: Sequence[QueryPart], k: int = 10, words: GalleryWords | None = None, *,
    allowed: Filter = None, excluded: Filter = None,
) -> Ranking:  # fmt: skip
    """The ``k`` best results of a query of several parts: Ranking (1, k), padded if there are fewer.

    The score of an image is the weighted mean of its cosines with the parts: the sum of weight × cosine, divided by
    the sum of the weights' absolute values. If the extractor embeds texts, such as an image–text encoder, all parts are
    vectors of one space, and one search finds the best. Otherwise images are compared in the space of the features and
    texts in a space of words. The scores of the best images of each, ``k`` but at least `DEPTH`, are then combined.

    Parameters
    ----------
    words : the images in a space of words; needed for texts unless the extractor embeds texts.
    allowed, excluded : as in `Index.search`.

    Raises
    ------
    ValueError : there is no part, no weight is positive, a text has no known word, or k < 1.
    TextUnsupported : the engine cannot be searched by text, or its index has no cosines.
    """
    k = check_k(k)
    if not any(part.weight > 0 for part in parts):
        raise ValueError("a query needs at least one part with a positive weight")
    check_metric(engine)
    texts = [part for part in parts if part.text is not None]
    images = [part for part in parts if part.text is None]
    total = sum(abs(part.weight) for part in parts)
    if texts and words is None:
        images, texts = [*images, *_embedded(engine, texts)], []
    by_image = _sum([(part.weight, part.vector) for part in images if part.vector is not None]) / total
    if not texts or words is None:
        found = engine.index.search(by_image[None], k, allowed=allowed, excluded=excluded)
        if len(images) == 1:
            return found
        # The index divided the query by its length.
        return Ranking(found.ids, np.where(found.ids == PAD, -np.inf, found.scores * np.linalg.norm(by_image)))
    by_text = _sum([(part.weight, words.embed_text(part.text or "")) for part in texts]) / total
    index, gone = words.of(engine)
    hidden = union(IdSet.of(excluded), gone)
    depth = max(k, DEPTH) if images else k
    candidates = []
    if len(index) and any(part.weight > 0 for part in texts):
        candidates.append(index.search(by_text[None], depth, allowed=allowed, excluded=hidden).ids[0])
    if any(part.weight > 0 for part in images):
        candidates.append(engine.index.search(by_image[None], depth, allowed=allowed, excluded=excluded).ids[0])
    ids = np.unique(np.concatenate(candidates)) if candidates else np.empty(0, np.int64)
    ids = ids[ids != PAD]
    scores = np.zeros(len(ids))
    if images and len(ids):
        scores += l2_normalize(engine.index.vectors(ids)) @ by_image
    held = index.contains(ids)
    if held.any():
        scores[held] += l2_normalize(index.vectors(ids[held])) @ by_text
    # An image without class scores resembles no text.
    best, of_best = best_first(ids[None], scores[None])
    return Ranking(*keep(best, of_best, best != PAD, k))


def _embedded(engine: Engine, texts: Sequence[QueryPart]) -> list[QueryPart]:
    """Texts as vectors of the extractor's space. Raises TextUnsupported: it embeds no texts."""
    try:
        encoder = text_encoder(engine.extractor)
    except NoTextEncoder as error:
        raise TextUnsupported(
            f"The extractor {engine.extractor.name} embeds no texts. Add class scores to the engine with "
            "`lookalike classify -e ENGINE`, or index with an image–text encoder; `lookalike encoders` lists them."
        ) from error
    vectors = encoder.embed_text([part.text or "" for part in texts])
    return [QueryPart(part.weight, vector) for part, vector in zip(texts, vectors, strict=True)]


def _sum(parts: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """float64 (dim,): the weighted sum of unit vectors; empty without any."""
    if not parts:
        return np.empty(0)
    weights = np.array([weight for weight, _ in parts], np.float64)
    return weights @ l2_normalize(np.stack([np.asarray(vector, np.float32) for _, vector in parts])).astype(np.float64)
