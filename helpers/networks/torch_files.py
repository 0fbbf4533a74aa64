"""Reading PyTorch's old file format without PyTorch.

``torch.save`` wrote this format before version 1.6: five pickles (magic number, protocol version, system, dictionary of
tensors, keys of the storages), then each storage as a count and its raw values.
https://github.com/pytorch/pytorch/blob/v1.5.0/torch/serialization.py, ``_legacy_save``
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
#: Storage class → dtype of its values in the file.
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
#: The opcodes of such a file. Others can only be in a damaged file.
_OPCODES = (
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET",
)  # fmt: skip
#: Errors of the unpickler and of the checks below for damaged content.
_DAMAGED = (
    pickle.UnpicklingError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OverflowError,
)  # fmt: skip


class TorchFileError(ValueError):
    """The file is not a state dictionary in PyTorch's old format, or is damaged; the message names it."""


@dataclass(frozen=True)
class _Tensor:
    """A part of a storage. Offset and strides count values, not bytes."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary: float32 or int64, by name.

    Only the classes that such a file needs are unpickled, so a file cannot run code.

    Raises `TorchFileError` if the file has another format or is damaged.
    """
    # In memory, where reading a damaged length allocates no more than the file has.
    file = io.BytesIO(Path(path).read_bytes())
    try:
        if (magic := _load(file)) != _MAGIC or (version := _load(file)) != _PROTOCOL:
            raise TorchFileError(f"magic number or version is wrong: {magic if magic != _MAGIC else version}")
        if not _load(file)["little_endian"]:
            raise TorchFileError("it was written on a big-endian computer")
        tensors, keys = _load(file), _load(file)
        dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
        storages = {key: _read_storage(file, dtypes[key]) for key in keys}
        return {name: _array(storages[tensor.storage], tensor) for name, tensor in tensors.items()}
    except _DAMAGED as error:
        raise TorchFileError(f"{path} is not a PyTorch state dictionary of the old format: {error}") from error


def _load(file: io.BytesIO) -> Any:
    """Unpickle one object after a check of its opcodes.

    The unpickler allocates memory for a damaged length before it reads the value: for a BYTEARRAY8, where Python 3.11
    also prints "deallocated bytearray object has exported buffers", and for the number of a stored object.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"the opcode {opcode.name} is not allowed")
        # Objects are numbered from 0 on, and each takes at least one byte.
        if opcode.name in ("BINPUT", "LONG_BINPUT") and argument is not None and argument > file.tell() - start:
            raise pickle.UnpicklingError(f"an object has the number {argument}, but there are fewer")
    file.seek(start)
    return _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Allow three names; https://docs.python.org/3/library/pickle.html#restricting-globals."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        """A storage: its key and dtype."""
        kind, dtype, key, _, _, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"an unknown reference: {pid}")
        return key, dtype


def _rebuild_tensor(
    storage: tuple[str, np.dtype], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(*storage, offset, shape, strides)


def _read_storage(file: io.BytesIO, dtype: np.dtype) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little", signed=True) * dtype.itemsize
    if not 0 <= size <= len(file.getbuffer()) - file.tell():
        raise EOFError("the file is truncated")
    return np.frombuffer(file.read(size), dtype)


def _array(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    numbers = (tensor.offset, *tensor.strides, *tensor.shape)
    # With a stride of 0, a tensor inside of its storage can have any size.
    if min(numbers) < 0 or max(last, math.prod(tensor.shape) - 1) >= len(storage):
        raise ValueError("a tensor exceeds its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
