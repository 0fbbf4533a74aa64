"""Files of PyTorch's old format, written here as `torch.save` wrote them before version 1.6."""

import io
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.networks.torch_files import TorchFileError, read_state_dict

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


def written(torch, path, storages, tensors, system=SYSTEM, view=None, kinds=None):
    """A file of storages (key → array) and tensors (name → (key, offset, shape, strides))."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not (isinstance(value, tuple) and value[:1] == ("storage",)):
                return None
            key = value[1]
            name = (kinds or {}).get(key) or {"f": "FloatStorage", "i": "LongStorage"}[storages[key].dtype.kind]
            return "storage", getattr(torch.package, name), key, "cpu", len(storages[key]), view

    content = io.BytesIO()
    dictionary = OrderedDict((name, Tensor(torch, *tensor)) for name, tensor in tensors.items())
    for value in (MAGIC, PROTOCOL, system, dictionary, list(storages)):
        Pickler(content, protocol=2).dump(value)
    for values in storages.values():
        content.write(np.int64(len(values)).tobytes() + values.tobytes())
    path.write_bytes(content.getvalue())
    return path


STORAGES = {"7": np.arange(12, dtype="<f4") / 2, "9": np.array([3], "<i8")}
TENSORS = {
    "conv.weight": ("7", 2, (2, 4), (1, 2)),  # columns first, from the third value on
    "conv.bias": ("7", 0, (3,), (4,)),
    "steps": ("9", 0, (), ()),
}


def test_tensors_with_offsets_and_strides(torch, tmp_path):
    state = read_state_dict(written(torch, tmp_path / "a.pth", STORAGES, TENSORS))
    assert list(state) == ["conv.weight", "conv.bias", "steps"]
    assert state["conv.weight"].tolist() == [[1, 2, 3, 4], [1.5, 2.5, 3.5, 4.5]]
    assert state["conv.bias"].tolist() == [0, 2, 4]
    assert state["steps"].shape == () and state["steps"] == 3
    assert state["conv.weight"].dtype == np.float32 and state["steps"].dtype == np.int64


@pytest.mark.parametrize(
    "tensor",
    [
        ("7", 0, (13,), (1,)),
        ("7", 11, (2,), (1,)),
        ("7", -1, (2,), (1,)),
        ("7", 5, (3,), (-1,)),
        ("7", 0, (3, 2), (5, 2)),
        ("7", 0, (2**31, 2**20), (0, 0)),
    ],
)
def test_a_tensor_outside_of_its_storage(torch, tmp_path, tensor):
    with pytest.raises(TorchFileError, match=r"a.pth .* exceeds its storage"):
        read_state_dict(written(torch, tmp_path / "a.pth", STORAGES, TENSORS | {"w": tensor}))


def test_a_file_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (tmp_path / "written").touch, ()

    content = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, SYSTEM, {"w": Attack()}, []))
    (tmp_path / "attack.pth").write_bytes(content)
    with pytest.raises(TorchFileError, match="not allowed"):
        read_state_dict(tmp_path / "attack.pth")
    assert not (tmp_path / "written").exists()


def test_unknown_content(torch, tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(TorchFileError, match="big-endian"):
        read_state_dict(written(torch, path, STORAGES, TENSORS, SYSTEM | {"little_endian": False}))
    with pytest.raises(TorchFileError, match="unknown reference"):
        read_state_dict(written(torch, path, STORAGES, TENSORS, view=("8", 0, 3)))
    with pytest.raises(TorchFileError, match=r"torch\.HalfStorage is not allowed"):
        read_state_dict(written(torch, path, STORAGES, TENSORS, kinds={"7": "HalfStorage"}))


def test_other_files(tmp_path):
    for content in (b"", b"PK\x03\x04", pickle.dumps({"a": 1}), pickle.dumps(MAGIC) + pickle.dumps(1002)):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(TorchFileError, match="other is not a PyTorch state dictionary"):
            read_state_dict(tmp_path / "other")


@pytest.mark.parametrize(
    "damage",
    [b"\x96" + (2**62).to_bytes(8, "little"), b"r" + (2**22).to_bytes(4, "little")],
    ids=["BYTEARRAY8", "LONG_BINPUT"],
)
def test_a_damaged_length_allocates_little(torch, tmp_path, capfd, damage):
    """At each position of the pickles; Python's own messages go to stderr."""
    path = written(torch, tmp_path / "a.pth", STORAGES, TENSORS)
    content = path.read_bytes()
    errors = set()
    for position in range(content.index(np.int64(len(STORAGES["7"])).tobytes() + STORAGES["7"].tobytes())):
        path.write_bytes(content[:position] + damage + content[position + len(damage) :])
        tracemalloc.start()
        try:
            read_state_dict(path)  # inside of a name, all bytes are valid
        except TorchFileError as error:
            errors.add(str(error))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20, position
    assert any("in a bytearray8" in error or f"the number {2**22}" in error for error in errors)
    assert capfd.readouterr().err == ""


@given(st.data())
def test_a_damaged_file_is_named_or_gives_arrays(torch, tmp_path_factory, data):
    path = written(torch, tmp_path_factory.mktemp("damaged") / "a.pth", STORAGES, TENSORS)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
            content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        state = read_state_dict(path)
    except TorchFileError as error:
        assert "a.pth" in str(error)
    else:
        assert all(isinstance(values, np.ndarray) for values in state.values())
