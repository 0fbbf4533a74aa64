"""The file that an index is saved in: a header, a checksum and raw arrays."""

import contextlib
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.search.index.factory import open_index

if TYPE_CHECKING:
    from helpers.search.index.base import Index

FORMAT_VERSION = 1
_MAGIC = b"LOOKALIKE INDEX\n"
_START = struct.Struct(f"<{len(_MAGIC)}sII")  # magic, version, length of the header
_ALIGN = 64  # arrays start at multiples of this, so that a mapped file can be computed on as it is


class IndexFileError(OSError):
    """A file is no index, is damaged, or can't be written; the message names it and the remedy."""


class Streamed:
    """The bytes that a library writes by itself, saved as uint8 (n,) without being in memory as a whole.

    write : called with a function that takes bytes; twice, and it must hand over the same bytes both times.
    """

    def __init__(self, write: Callable[[Callable[[bytes], object]], object]):
        self.write = write


def write_atomically(path: str | Path, parts: Iterable) -> Path:
    """Write parts one after the other; at any moment the file is either the old or the new one.

    parts : bytes-like, or `Streamed`.

    Raises
    ------
    IndexFileError : the disk is full, or the file can't be written; the old one is untouched.
    """
    path = Path(path)
    # In the same folder: a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for part in parts:
                if isinstance(part, Streamed):
                    part.write(file.write)
                else:
                    file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise IndexFileError(
            f"{path} can't be written: {error}. What was there before is kept. "
            "Free some space or save to another folder."
        ) from error
    finally:
        # Where the folder itself is the trouble, there is nothing to take away.
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def load_index(path: str | Path, mmap: bool = False) -> "Index":
    """The index that `Index.save` wrote, whatever its backend.

    mmap : leave the vectors on disk and let the system read what a search touches. Then only the header's
        checksum and the file's length are checked, the file has to stay where it is, and damage in what a library
        like FAISS wrote may give wrong answers or end the process. Annoy does without, see there.

    Raises
    ------
    FileNotFoundError : there is no such file.
    IndexFileError : it is truncated, damaged, no index, or of another format version.
    ImportError : the backend's package is not installed.
    """
    path = Path(path)
    header, arrays = _decode(path, mmap)
    try:
        index = open_index(header["spec"])
        # A copy, because a view would keep all of the file in memory as long as the index.
        ids = np.array(arrays.pop("ids"))
        if len(ids) != header["count"] or (ids[1:] <= ids[:-1]).any():
            raise ValueError(f"{len(ids)} ids for {header['count']} vectors, or not rising")
        index._ids, index.dim, index._next_id = ids, header["dim"], header["next_id"]
        index._restore(arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFileError(f"{path} can't be opened: {error}. Make the index again and save it.") from error
    return index


def encode(header: dict, arrays: dict[str, np.ndarray | Streamed]) -> Iterable:
    """Start · header as JSON · SHA-256 of both · the arrays, raw and aligned, whose SHA-256 the header holds."""
    body, table, offset, digest = [], [], 0, hashlib.sha256()
    for name, array in arrays.items():
        if isinstance(array, Streamed):
            dtype, size = np.dtype(np.uint8), _digest(array, digest)
            body.append(array)
            shape = (size,)
        else:
            # Little-endian whatever the machine.
            dtype = array.dtype.newbyteorder("<")
            array = np.ascontiguousarray(array, dtype=dtype)
            shape, size = array.shape, array.nbytes
            body.append(array.reshape(-1).view(np.uint8).data)
            digest.update(body[-1])
        table.append({"name": name, "dtype": dtype.str, "shape": shape, "offset": offset})
        body.append(bytes(-size % _ALIGN))
        digest.update(body[-1])
        offset += size + len(body[-1])
    header = header | {"arrays": table, "body_bytes": offset, "body_sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    start = _START.pack(_MAGIC, FORMAT_VERSION, len(text)) + text
    head = start + hashlib.sha256(start).digest()
    return [head, bytes(-len(head) % _ALIGN), *body]


def _digest(streamed: Streamed, digest) -> int:
    """Feed the bytes to a hash; how many they are."""
    size = 0

    def take(part: bytes) -> None:
        nonlocal size
        digest.update(part)
        size += len(part)

    streamed.write(take)
    return size


def _decode(path: Path, mmap: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a file that `_encode` made, checked."""
    try:
        content = np.memmap(path, np.uint8, "r") if mmap else np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist. Write an index there with Index.save.") from error
    except (OSError, ValueError) as error:  # memmap refuses an empty file
        raise IndexFileError(f"{path} can't be read: {error}. Give a file that Index.save wrote.") from error
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
        # A file cut within the first bytes can't be told from another kind of file.
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
