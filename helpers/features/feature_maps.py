"""Feature maps of frozen blocks, computed once and stored, so that fine-tuning only runs the blocks after them."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from helpers import paths
from helpers.features.file_hashes import content_hashes
from helpers.features.store import VectorStore, pixels_hash
from helpers.files import write_text
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.networks import compiled, fingerprints, zoo
from helpers.networks.compiled import CompiledNetwork, KerasNetwork
from helpers.networks.transfer import SplitNetwork
from helpers.vectors import l2_normalize

if TYPE_CHECKING:
    import keras

#: Key of the images' content in the JSON files, and so in their names. Another word would orphan existing files.
_IMAGES = "pictures"

#: Trunk → (its fingerprint, compiled network). Compiling takes seconds, and several sets use the same trunk.
_ready: "WeakKeyDictionary[keras.Model, tuple[str, CompiledNetwork]]" = WeakKeyDictionary()


class FeatureMapError(OSError):
    """Maps cannot be stored or read: the disk is full, a value does not fit into float16, or the file is damaged."""


def feature_maps(
    images: ImageSet, split: SplitNetwork, resize: str = "squash", batch_size: int = 16, progress: bool = True
) -> np.ndarray:
    """Compute the trunk's feature maps: float16 (n, h, w, channels), memory-mapped and read-only.

    The maps are stored under ``maps/`` in the cache by the images' content, the trunk (weights and size) and the resize
    rule. A call after an interruption continues where it stopped, and maps of images in earlier sets are copied.
    ResNet50 at 224 × 224 takes 401 kB per image. With float16 (11 bits), the tail's vectors differ by less than 1e-3 in
    cosine distance.

    Raises `FeatureMapError`, and `UnreadableImage` if an image cannot be read; `reading.readable` drops such images.
    """
    shape = (len(images), *split.trunk.outputs[0].shape[1:])
    if not len(images):
        return np.empty(shape, np.float16)  # an empty file cannot be mapped
    key = {
        # The network's name covers the preprocessing.
        "network": split.name, "trunk": fingerprints.of_model(split.trunk), "resize": resize,
        _IMAGES: [content.hex() for content in content_hashes(images.paths)],
    }  # fmt: skip
    path = _file(images.name, key)
    needed = 2 * int(np.prod(shape))
    if not path.is_file():
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.is_file():
                    _compute(images, split, key, batch_size, progress, part, shape)
                    write_text(path.with_suffix(".json"), json.dumps(key))
                    part.replace(path)
        except FeatureMapError:
            raise
        except OSError as error:
            raise FeatureMapError(
                f"{part} can't be written ({error}): it needs {needed:,} bytes. Free some space and run "
                "again to continue, or set LOOKALIKE_CACHE to a folder on another disk, where the computation starts "
                "again."
            ) from error
    if path.stat().st_size != needed:
        raise FeatureMapError(
            f"{path} is damaged: it has {path.stat().st_size:,} bytes, not {needed:,}. Move it to another folder; its "
            "maps will be computed again."
        )
    return np.memmap(path, np.float16, mode="r", shape=shape)


def _file(name: str, key: dict) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", name.split(",")[0])
    return paths.cache_dir() / "maps" / f"{key['network']}-{name}-{digest}.f16"


def _compute(
    images: ImageSet, split: SplitNetwork, key: dict, batch_size: int, progress: bool, part: Path,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    # Maps are written in order, so the file's length gives the number of images done. A partial map is computed again.
    image_bytes = 2 * int(np.prod(shape[1:]))
    done = part.stat().st_size // image_bytes if part.is_file() else 0
    known = _known(part.parent, key, shape[1:])
    new = [row for row in range(done, len(images)) if key[_IMAGES][row] not in known]
    computed = _through_trunk([images.paths[row] for row in new], split, key, batch_size)
    bar = tqdm(
        total=len(images), initial=done, desc=f"{split.name} trunk · {images.name}", unit="image",
        disable=None if progress else True,
    )  # fmt: skip
    with part.open("r+b" if part.is_file() else "wb") as file, bar:
        file.truncate(done * image_bytes)
        file.seek(0, os.SEEK_END)
        for image in key[_IMAGES][done:]:
            file.write((known[image] if image in known else next(computed)).tobytes())
            file.flush()
            bar.update()


def _known(folder: Path, key: dict, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Content hash of an image → its map in the file of another set from the same trunk."""
    known: dict[str, np.ndarray] = {}
    for description in folder.glob(f"{key['network']}-*.json"):
        try:
            other = json.loads(description.read_text())
        except ValueError:
            continue  # damaged; its maps are computed again
        path, whole = description.with_suffix(".f16"), (len(other[_IMAGES]), *shape)
        if (
            all(other[name] == key[name] for name in ("network", "trunk", "resize"))
            and path.is_file()
            and path.stat().st_size == 2 * int(np.prod(whole))
        ):
            known.update(zip(other[_IMAGES], np.memmap(path, np.float16, mode="r", shape=whole), strict=True))
    return known


def _through_trunk(paths: Sequence[Path], split: SplitNetwork, key: dict, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the map of each image, in order."""
    trunk = _network(split, key["trunk"])
    for rows, maps in trunk.stream(reading.batches(paths, split.size, key["resize"], batch_size, strict=True)):
        with np.errstate(over="ignore"):  # reported below, with the image's name
            maps = np.asarray(maps).astype(np.float16)
        for row, one in zip(rows, maps, strict=True):
            if not np.isfinite(one).all():
                raise FeatureMapError(
                    f"{split.name}: a value of the feature map of {paths[row]} does not fit into float16 "
                    f"(±{np.finfo(np.float16).max:.0f}). Train from images instead."
                )
            yield one


def _network(split: SplitNetwork, fingerprint: str) -> KerasNetwork | CompiledNetwork:
    """The trunk, compiled again only after its weights have changed."""
    if split.trunk in _ready and _ready[split.trunk][0] == fingerprint:
        return _ready[split.trunk][1]
    prepare = zoo.preprocessing(split.name)
    network = compiled.fastest(lambda: KerasNetwork(split.trunk, prepare, split.size), f"{split.name}-trunk")
    # KerasNetwork refers to the trunk, so the weak key would never expire.
    if isinstance(network, CompiledNetwork):
        _ready[split.trunk] = fingerprint, network
    return network


def vectors(
    tail: "keras.Model", maps: np.ndarray, batch_size: int = 64, normalize: bool = True, cache: bool = False
) -> np.ndarray:
    """Output of a network's tail, or of any model, for feature maps or vectors (n, …): float32 (n, dim).

    normalize : divide each vector by its Euclidean length, as extractors do; see `transfer.warmed_up` for when not to.
        Must be False for a model that returns maps, such as `SplitNetwork.last_maps`.
    cache : store the vectors under ``vectors/`` in the cache, by the content of each map and a fingerprint of the
        model. Use it for a model that will be used again, not in every epoch of a training. The model must return
        vectors.
    """
    found = np.empty((len(maps), *tail.outputs[0].shape[1:]), np.float32)

    def compute(rows: Sequence[int]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield part, tail.predict_on_batch(np.asarray(maps[part], np.float32))

    if not cache:
        for rows, part in compute(range(len(maps))):
            found[rows] = part
    elif found.ndim != 2:
        raise ValueError(f"{tail.name} returns maps {found.shape}; only vectors (n, dim) can be cached")
    else:
        with VectorStore(f"tail-{fingerprints.of_model(tail)[:16]}", found.shape[1]) as kept:
            found = kept.complete([pixels_hash(one) for one in maps], compute)
    return l2_normalize(found) if normalize else found
