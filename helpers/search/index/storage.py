"""The file of an index: a header, a checksum and raw arrays."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from helpers.files import write_atomically
from helpers.search.index.checks import as_ids
from helpers.search.index.factory import open_index

if TYPE_CHECKING:
    from helpers.search.index.base import Index

FORMAT_VERSION = 1
_MAGIC = b"LOOKALIKE INDEX\n"
_START = struct.Struct(f"<{len(_MAGIC)}sII")  # magic, version, length of the header
_ALIGN = 64  # arrays start at multiples of this, so that a mapped file can be used in computations

#: Writes bytes by calling a function with each part.
Writer = Callable[[Callable[[bytes], object]], object]


class IndexFileError(OSError):
    """A file is not an index, is damaged, or cannot be written; the message names it and the remedy."""


class Streamed:
    """The bytes that a library writes by itself, saved as uint8 (n,) without a copy in memory.

    write : called twice; it must pass the same bytes both times.
    """

    def __init__(self, write: Writer):
        self.write = write


Part = bytes | memoryview | Streamed


def save_arrays(path: str | Path, header: dict, arrays: dict[str, np.ndarray | Streamed]) -> Path:
    """Write header and arrays; at every moment the file is either the old one or the new one.

    Raises IndexFileError: the disk is full, or the file cannot be written; the old one is kept.
    """

    def write(file: BinaryIO) -> None:
        for part in encode(header, arrays):
            if isinstance(part, Streamed):
                part.write(file.write)
            else:
                file.write(part)

    try:
        return write_atomically(path, write)
    except OSError as error:
        raise IndexFileError(
            f"{path} cannot be written: {error}. The previous file is kept. Free some space or save to another folder."
        ) from error


def load_index(path: str | Path, mmap: bool = False, changing: ArrayLike = ()) -> "Index":
    """The index that `Index.save` wrote, whatever its backend.

    mmap : leave the vectors on disk; the system reads what a search touches. Then only the header's checksum and the
        file's length are checked, the file must not be moved, and damage in the part of a library such as FAISS may
        give wrong results or end the process. Annoy ignores this option, see there.
    changing : ids that a server may have or not, because their addition or removal was interrupted.

    Raises
    ------
    FileNotFoundError : there is no such file.
    IndexFileError : it is truncated, damaged, not an index, or of another format version.
    ImportError : the backend's package is not installed.
    """
    path = Path(path)
    header, arrays = _decode(path, mmap)
    try:
        index = open_index(header["spec"])
        # A copy, because a view would keep the whole file in memory.
        ids = np.array(arrays.pop("ids"))
        if len(ids) != header["count"] or (ids[1:] <= ids[:-1]).any():
            raise ValueError(f"{len(ids)} ids for {header['count']} vectors, or ids that are not ascending")
        index._ids, index.dim, index._next_id = ids, header["dim"], header["next_id"]
        index._restore(arrays)
        index._check_stored(as_ids(changing))
    except (ValueError, KeyError, TypeError) as error:
        problem = f"the part {error} is missing" if isinstance(error, KeyError) else error
        raise IndexFileError(f"{path} cannot be opened: {problem}. Make the index again and save it.") from error
    return index


def encode(header: dict, arrays: dict[str, np.ndarray | Streamed]) -> Iterable[Part]:
    """Start · header as JSON · SHA-256 of both · the arrays, raw and aligned, whose SHA-256 is in the header."""
    body: list[Part] = []
    table, offset, digest = [], 0, hashlib.sha256()
    for name, array in arrays.items():
        if isinstance(array, Streamed):
            size = _digest(array, digest)
            dtype, shape = np.dtype(np.uint8), (size,)
            body.append(array)
        else:
            # Little-endian on every machine.
            dtype = array.dtype.newbyteorder("<")
            array = np.ascontiguousarray(array, dtype=dtype)
            shape, size = array.shape, array.nbytes
            data = array.reshape(-1).view(np.uint8).data
            body.append(data)
            digest.update(data)
        table.append({"name": name, "dtype": dtype.str, "shape": shape, "offset": offset})
        padding = bytes(-size % _ALIGN)
        body.append(padding)
        digest.update(padding)
        offset += size + len(padding)
    header = header | {"arrays": table, "body_bytes": offset, "body_sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    start = _START.pack(_MAGIC, FORMAT_VERSION, len(text)) + text
    head = start + hashlib.sha256(start).digest()
    return [head, bytes(-len(head) % _ALIGN), *body]


def _digest(streamed: Streamed, digest: "hashlib._Hash") -> int:
    """Add the bytes to a hash; returns their number."""
    size = 0

    def add(part: bytes) -> None:
        nonlocal size
        digest.update(part)
        size += len(part)

    streamed.write(add)
    return size


def _decode(path: Path, mmap: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """The checked header and arrays of a file."""
    try:
        content = np.memmap(path, np.uint8, "r") if mmap else np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist. Write an index there with Index.save.") from error
    except (OSError, ValueError) as error:  # memmap raises ValueError for an empty file
        raise IndexFileError(f"{path} cannot be read: {error}. Give a file that Index.save wrote.") from error
    header, body = _decode_header(path, content)
    if len(body) != header["body_bytes"]:
        what = "truncated" if len(body) < header["body_bytes"] else "too long"
        raise IndexFileError(
            f"{path} is {what}: {len(body)} bytes of vectors instead of {header['body_bytes']}. "
            "Copy it again, or make the index again and save it."
        )
    if not mmap and hashlib.sha256(body.data).hexdigest() != header["body_sha256"]:
        raise _damaged(path)
    arrays = {}
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        end = entry["offset"] + dtype.itemsize * int(np.prod(shape))
        arrays[entry["name"]] = body[entry["offset"] : end].view(dtype).reshape(shape)
    return header, arrays


def _decode_header(path: Path, content: np.ndarray) -> tuple[dict, np.ndarray]:
    start = content[: _START.size].tobytes()
    if not start.startswith(_MAGIC):
        raise IndexFileError(f"{path} is not an index, or truncated. Give a file that Index.save wrote.")
    if len(start) < _START.size:
        raise _damaged(path)
    _, version, length = _START.unpack(start)
    if version != FORMAT_VERSION:
        raise IndexFileError(
            f"{path} has format version {version}; this library reads {FORMAT_VERSION}. "
            "Make the index again and save it, or use the library that wrote it."
        )
    end = _START.size + length
    head, digest = content[:end].tobytes(), content[end : end + 32].tobytes()
    if hashlib.sha256(head).digest() != digest:
        raise _damaged(path)
    return json.loads(head[_START.size :]), content[end + 32 + -(end + 32) % _ALIGN :]


def _damaged(path: Path) -> IndexFileError:
    return IndexFileError(
        f"{path} is truncated or damaged: its checksum is wrong. Copy it again, or make the index again and save it."
    )
