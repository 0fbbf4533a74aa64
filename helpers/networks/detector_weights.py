"""The pretrained detector: SSD MobileNetV2 for 23 classes of Open Images v4, from an npm package of MediaPipe.

One file of the package has the names of the classes, then the network in TensorFlow Lite's format. Apache-2.0.
"""

import hashlib
import tarfile
import tempfile
from pathlib import Path

from helpers import paths
from helpers.networks import npm, weights

NAME = "ssd-mobilenetv2"
NPM_PACKAGE = "@mediapipe/objectron@0.4.1675468480"
NPM_INTEGRITY = "sha512-IoWuW0ojc9GaSW6UoDCIXgwjLSqTEcR5w8NYuGH+R5+q+nKzS7KOIGfY/eyx4DttReumb398W6+PpW0DQ2Rs/w=="
MEMBER = "package/objectron_solution_packed_assets.data"
#: Bytes of the names at the beginning of the file; the package's loader lists them.
NAMES_SIZE = 184
_MEGABYTES = 33


def load() -> tuple[Path, tuple[str, ...]]:
    """The network's file and the names of its classes, the first of which is the background.

    The package is downloaded at the first use. Raises `WeightsUnavailable` if it is not available, or if the cached
    file is damaged.
    """
    path = weights.cached(_file(), _download)
    with weights.intact(path) as found:
        if hashlib.sha256(path.read_bytes()).hexdigest() != found["sha256"]:
            raise ValueError("the checksum is wrong")
        return path, tuple(found["names"])


def available() -> bool:
    """Whether the network is in the cache."""
    return weights.is_stored(_file())


def _file() -> Path:
    return paths.cache_dir() / "weights" / f"{NAME}.tflite"


def _download() -> None:
    path = _file()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            tarfile.open(npm.download(NPM_PACKAGE, NPM_INTEGRITY, Path(folder))) as archive,
        ):
            member = archive.extractfile(MEMBER)
            content = member.read() if member else b""
    except npm.WeightsUnavailable as error:
        remedy = f"run once with access to npm's registry (about {_MEGABYTES} MB)"
        raise weights.unavailable(f"the detector {NAME}", [str(error)], remedy, path) from error
    names = content[:NAMES_SIZE].decode().splitlines()
    weights.store(path, content[NAMES_SIZE:], f"npm {NPM_PACKAGE}", names=names)
