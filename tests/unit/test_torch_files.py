"""Files of PyTorch's old format, written here as `torch.save` wrote them before version 1.6."""

import io
import pickle
import sys
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from helpers.networks.torch_files import read_state_dict

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@pytest.fixture(scope="module")
def torch():
    """The classes that a file refers to, under PyTorch's names, so that they can be pickled."""
    package, utils = ModuleType("torch"), ModuleType("torch._utils")

    def rebuild(*arguments):
        return arguments

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(package, name, type(name, (), {"__module__": "torch"}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": package, "torch._utils": utils}
    yield SimpleNamespace(package=package, rebuild=rebuild)
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


class Tensor:
    """A part of a storage, pickled as PyTorch pickles tensors."""

    def __init__(self, torch, key, offset, shape, strides):
        self.arguments = (torch.rebuild, (("storage", key), offset, shape, strides, False, OrderedDict()))

    def __reduce__(self):
        return self.arguments


def written(torch, storages, tensors, system=SYSTEM, kinds=None):
    """The content of a file of storages (key → array) and tensors (name → (key, offset, shape, strides))."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not (isinstance(value, tuple) and value[:1] == ("storage",)):
                return None
            key = value[1]
            name = (kinds or {}).get(key) or {"f": "FloatStorage", "i": "LongStorage"}[storages[key].dtype.kind]
            return "storage", getattr(torch.package, name), key, "cpu", len(storages[key]), None

    content = io.BytesIO()
    dictionary = OrderedDict((name, Tensor(torch, *tensor)) for name, tensor in tensors.items())
    for value in (MAGIC, PROTOCOL, system, dictionary, list(storages)):
        Pickler(content, protocol=2).dump(value)
    for values in storages.values():
        content.write(np.int64(len(values)).tobytes() + values.tobytes())
    return content.getvalue()


STORAGES = {"7": np.arange(12, dtype="<f4") / 2, "9": np.array([3], "<i8")}
TENSORS = {
    "conv.weight": ("7", 2, (2, 4), (1, 2)),  # columns first, from the third value on
    "conv.bias": ("7", 0, (3,), (4,)),
    "steps": ("9", 0, (), ()),
}


def test_tensors_with_offsets_and_strides(torch):
    state = read_state_dict(written(torch, STORAGES, TENSORS))
    assert list(state) == ["conv.weight", "conv.bias", "steps"]
    assert state["conv.weight"].tolist() == [[1, 2, 3, 4], [1.5, 2.5, 3.5, 4.5]]
    assert state["conv.bias"].tolist() == [0, 2, 4]
    assert state["steps"].shape == () and state["steps"] == 3
    assert state["conv.weight"].dtype == np.float32 and state["steps"].dtype == np.int64


def test_a_file_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (tmp_path / "written").touch, ()

    content = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, SYSTEM, {"w": Attack()}, []))
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        read_state_dict(content)
    assert not (tmp_path / "written").exists()


def test_another_storage_is_not_allowed(torch):
    with pytest.raises(pickle.UnpicklingError, match=r"torch\.HalfStorage is not allowed"):
        read_state_dict(written(torch, STORAGES, TENSORS, kinds={"7": "HalfStorage"}))


@pytest.mark.parametrize("system", [SYSTEM | {"little_endian": False}, SYSTEM])
def test_another_format(torch, system):
    content = written(torch, STORAGES, TENSORS, system)
    if system is SYSTEM:
        content = pickle.dumps(PROTOCOL, 2) + content[len(pickle.dumps(MAGIC, 2)) :]
    with pytest.raises(pickle.UnpicklingError, match="byte order"):
        read_state_dict(content)
