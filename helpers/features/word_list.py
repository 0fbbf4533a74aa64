"""A list of words that takes little memory: 400,000 words in 10 MB, where a dictionary takes 60 MB.

The words are one array of UTF-8 bytes. A sorted array of hashes finds them by binary search.
"""

from collections.abc import Iterable, Sequence

import numpy as np

#: Base of the polynomial hash, modulo 2**64; any large odd number spreads the words.
_BASE = 0x9E3779B97F4A7C15
#: Words hashed at a time, to keep intermediate results small.
_WORDS = 20_000
#: Words compared at a time by `WordList.spellings`.
_COMPARED = 50_000


class WordList:
    """Words in a fixed order, such as that of their frequency; row *i* is word *i*.

    Parameters
    ----------
    text : uint8 (b,): all words in UTF-8, one after the other.
    starts : int64 (n + 1,): where each word begins; the last number is b.

    Raises ValueError if a word is empty.
    """

    def __init__(self, text: np.ndarray, starts: np.ndarray):
        self.text = np.asarray(text, np.uint8)
        self.starts = np.asarray(starts, np.int64)
        if self.starts.ndim != 1 or not len(self.starts) or self.starts[0] != 0 or self.starts[-1] != len(self.text):
            raise ValueError(f"starts must begin with 0 and end with {len(self.text)}")
        if not (self.lengths > 0).all():
            raise ValueError(f"word {int(np.flatnonzero(self.lengths <= 0)[0])} is empty")
        hashes = _hashes(self.text, self.starts)
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._sorted = hashes[self._order]

    @classmethod
    def of(cls, words: Iterable[str | bytes]) -> "WordList":
        """The list of these words."""
        encoded = [_encoded(word) for word in words]
        starts = np.concatenate([[0], np.cumsum([len(word) for word in encoded], dtype=np.int64)])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): the number of bytes of each word."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> str:
        return self._bytes(range(len(self))[row]).decode(errors="surrogateescape")

    def find(self, words: Sequence[str]) -> np.ndarray:
        """int64 (m,): the row of each word; -1 for an unknown one. Of equal words, the first row is found."""
        return np.array([self._row(_encoded(word)) for word in words], np.int64)

    def repeated(self) -> tuple[int, int] | None:
        """Two rows with the same word, or None if each word occurs once."""
        for place in np.flatnonzero(self._sorted[1:] == self._sorted[:-1]):
            first, second = sorted(int(row) for row in self._order[place : place + 2])
            if self._bytes(first) == self._bytes(second):
                return first, second
        return None

    def spellings(self, word: str, count: int = 1) -> list[str]:
        """Up to ``count`` words with the fewest edits from this one, at most 2 (1 for words of up to four letters).

        An edit inserts, deletes or replaces a byte, or swaps two neighbors (optimal string alignment distance). Of
        words with the same number of edits, the first ones of the list come first.
        """
        target = np.frombuffer(_encoded(word), np.uint8)
        limit = 1 if len(target) <= 4 else 2
        found: list[tuple[int, int]] = []
        lengths = self.lengths
        for length in range(max(1, len(target) - limit), len(target) + limit + 1):
            rows = np.flatnonzero(lengths == length)
            for start in range(0, len(rows), _COMPARED):
                part = rows[start : start + _COMPARED]
                letters = self.text[self.starts[part][:, None] + np.arange(length)]
                edits = _edits(letters, target)
                near = np.flatnonzero(edits <= limit)
                found += zip(edits[near].tolist(), part[near].tolist(), strict=True)
        return [self[row] for _, row in sorted(found)[:count]]

    def _bytes(self, row: int) -> bytes:
        return self.text[self.starts[row] : self.starts[row + 1]].tobytes()

    def _row(self, word: bytes) -> int:
        if not word:
            return -1
        value = _hashes(np.frombuffer(word, np.uint8), np.array([0, len(word)]))[0]
        place = int(np.searchsorted(self._sorted, value))
        # Different words may have the same hash.
        while place < len(self) and self._sorted[place] == value:
            if self._bytes(int(self._order[place])) == word:
                return int(self._order[place])
            place += 1
        return -1


def _encoded(word: str | bytes) -> bytes:
    return word if isinstance(word, bytes) else word.encode(errors="surrogateescape")


def _hashes(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """uint64 (n,): a polynomial hash of each word's bytes and length."""
    lengths = np.diff(starts)
    hashes = np.empty(len(lengths), np.uint64)
    powers = np.full(int(lengths.max(initial=1)), _BASE, np.uint64)
    powers = np.multiply.accumulate(powers)
    for start in range(0, len(lengths), _WORDS):
        part = lengths[start : start + _WORDS]
        begin, end = starts[start], starts[start + len(part)]
        offsets = starts[start : start + len(part)] - begin
        places = np.arange(end - begin) - np.repeat(offsets, part)
        values = (text[begin:end].astype(np.uint64) + np.uint64(1)) * powers[places]
        hashes[start : start + len(part)] = np.add.reduceat(values, offsets)
    return hashes


def _edits(letters: np.ndarray, target: np.ndarray) -> np.ndarray:
    """uint8 (m,): optimal string alignment distance of each row of uint8 (m, length) to uint8 (t,)."""
    count, length = letters.shape
    columns = np.ascontiguousarray(letters.T)
    # One row of the table for each byte of the target; a cell has the distances of all words.
    before: list[np.ndarray] = []
    above = [np.full(count, min(j, 255), np.uint8) for j in range(length + 1)]
    for i, letter in enumerate(target):
        row = [np.full(count, min(i + 1, 255), np.uint8)]
        for j in range(length):
            cost = (columns[j] != letter).astype(np.uint8)
            cell = np.minimum(above[j] + cost, np.minimum(above[j + 1], row[j]) + np.uint8(1))
            if i and j:
                swapped = (columns[j - 1] == letter) & (columns[j] == target[i - 1])
                cell = np.where(swapped, np.minimum(cell, before[j - 1] + np.uint8(1)), cell)
            row.append(cell)
        before, above = above, row
    return above[-1]
