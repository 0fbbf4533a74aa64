"""Reading PyTorch's old file format without PyTorch.

``torch.save`` wrote this format before version 1.6: five pickles (magic number, protocol version, system, dictionary of
tensors, keys of the storages), then each storage as a count and its raw values.
https://github.com/pytorch/pytorch/blob/v1.5.0/torch/serialization.py, ``_legacy_save``
"""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
#: Storage class → dtype of its values in the file.
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_state_dict(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary: float32 or int64, by name.

    Only the classes that such a file needs are unpickled, so a file cannot run code.

    content : the bytes of a file whose checksum was verified.

    Raises `pickle.UnpicklingError` if the file has another format.
    """
    file, storages = io.BytesIO(content), dict[str, np.ndarray]()
    magic, protocol, system, tensors, keys = (_Unpickler(file, storages).load() for _ in range(5))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not system["little_endian"]:
        raise pickle.UnpicklingError("the magic number, the version or the byte order is another one")
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # the number of its values
        file.readinto(storages[key].data)
    return {name: tensor.copy() for name, tensor in tensors.items()}


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors as views of their storages, whose values follow in the file."""

    def __init__(self, file: io.BytesIO, storages: dict[str, np.ndarray]):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Allow three names; https://docs.python.org/3/library/pickle.html#restricting-globals."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage of a tensor."""
        _, dtype, key, _, size, _ = pid
        return self.storages.setdefault(key, np.empty(size, dtype))


def _rebuild_tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> np.ndarray:
    """Offset and strides count values, not bytes."""
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)
