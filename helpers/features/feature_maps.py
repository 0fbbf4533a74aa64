"""Feature maps of frozen blocks, computed once and kept on disk: an epoch of fine-tuning then costs its last block."""

import hashlib
import json
import os
import re
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

#: Trunk → (its fingerprint, what computes it). Converting a trunk takes seconds, and several sets need the same one.
_ready: "WeakKeyDictionary[keras.Model, tuple[str, KerasNetwork | CompiledNetwork]]" = WeakKeyDictionary()


class FeatureMapError(OSError):
    """The maps can't be kept or read: the disk is full, a value does not fit into float16, or the file is damaged."""


def feature_maps(
    images: ImageSet, split: SplitNetwork, resize: str = "squash", batch_size: int = 16, progress: bool = True
) -> np.ndarray:
    """float16 (n, h, w, channels), memory-mapped and read-only: row *i* is what the trunk makes of image *i*.

    Kept under ``maps/`` in the cache by the images' content, the trunk (its weights and size) and the resize rule. A
    call that was killed goes on where it was, and an image that was in an earlier set is not computed again: its map
    is copied. ResNet50 at 224 × 224 takes 401 kB an image.

    float16 keeps 11 bits; the vectors that the tail makes of such maps differ by less than 1e-3 in cosine distance,
    which a test holds.

    Raises
    ------
    UnreadableImage : an image can't be read; `reading.readable` drops those.
    FeatureMapError : the disk is full, a value does not fit into float16, or the file has another length.
    """
    shape = (len(images), *split.trunk.outputs[0].shape[1:])
    if not len(images):
        return np.empty(shape, np.float16)  # an empty file can't be mapped
    key = {
        # The zoo's name stands for the preprocessing.
        "network": split.name, "trunk": fingerprints.of_model(split.trunk), "resize": resize,
        "images": [content.hex() for content in content_hashes(images.paths)],
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
        except OSError as error:
            if isinstance(error, FeatureMapError):
                raise
            raise FeatureMapError(
                f"{part} can't be written ({error}): {needed:,} bytes are needed there. Free some space, or let "
                "LOOKALIKE_CACHE point to another disk, and run again: what was computed is kept."
            ) from error
    if path.stat().st_size != needed:
        raise FeatureMapError(
            f"{path} is damaged: it has {path.stat().st_size:,} bytes, not {needed:,}. Delete it; its maps will be "
            "computed again."
        )
    return np.memmap(path, np.float16, mode="r", shape=shape)


def _file(name: str, key: dict) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", name.split(",")[0])
    return paths.cache_dir() / "maps" / f"{key['network']}-{name}-{digest}.f16"


def _compute(images, split: SplitNetwork, key: dict, batch_size, progress, part: Path, shape) -> None:
    # Written in order, so the length of the file says how many images are done; a torn one is done again.
    image_bytes = 2 * int(np.prod(shape[1:]))
    done = part.stat().st_size // image_bytes if part.is_file() else 0
    known = _known(part.parent, key, shape[1:])
    new = [row for row in range(done, len(images)) if key["images"][row] not in known]
    computed = _through_trunk([images.paths[row] for row in new], split, key, batch_size)
    bar = tqdm(
        total=len(images), initial=done, desc=f"{split.name} trunk · {images.name}", unit="image",
        disable=None if progress else True,
    )  # fmt: skip
    with part.open("r+b" if part.is_file() else "wb") as file, bar:
        file.truncate(done * image_bytes)
        file.seek(0, os.SEEK_END)
        for image in key["images"][done:]:
            file.write(np.ascontiguousarray(known[image] if image in known else next(computed)))
            file.flush()
            bar.update()


def _known(folder: Path, key: dict, shape) -> dict[str, np.ndarray]:
    """Content of an image → its map in the file of another set, made by the same trunk."""
    known = {}
    for extracted in folder.glob(f"{key['network']}-*.json"):
        try:
            other = json.loads(extracted.read_text())
        except ValueError:
            continue  # damaged: what it saves is time alone
        kept, whole = extracted.with_suffix(".f16"), (len(other["images"]), *shape)
        if (
            all(other[name] == key[name] for name in ("network", "trunk", "resize"))
            and kept.is_file()
            and kept.stat().st_size == 2 * int(np.prod(whole))
        ):
            known |= zip(other["images"], np.memmap(kept, np.float16, mode="r", shape=whole), strict=True)
    return known


def _through_trunk(paths, split: SplitNetwork, key: dict, batch_size):
    """One map an image, in order."""
    trunk = _network(split, key["trunk"])
    for rows, maps in trunk.stream(reading.batches(paths, split.size, key["resize"], batch_size, strict=True)):
        with np.errstate(over="ignore"):  # said below, with the image's name
            maps = maps.astype(np.float16)
        for row, one in zip(rows, maps, strict=True):
            if not np.isfinite(one).all():
                raise FeatureMapError(
                    f"{split.name}: a value of the feature map of {paths[row]} does not fit into float16 "
                    f"(±{np.finfo(np.float16).max:.0f}). Train from images instead."
                )
            yield one


def _network(split: SplitNetwork, fingerprint: str) -> KerasNetwork | CompiledNetwork:
    """What computes the trunk. It is converted again only if the trunk's weights have changed."""
    known, network = _ready.get(split.trunk, (None, None))
    if known != fingerprint:
        # A weak key works only if the value does not refer to it: KerasNetwork does, so it is not kept.
        prepare = zoo.preprocessing(split.name)
        network = compiled.fastest(lambda: KerasNetwork(split.trunk, prepare, split.size), f"{split.name}-trunk")
        if isinstance(network, CompiledNetwork):
            _ready[split.trunk] = fingerprint, network
    return network


def vectors(
    tail: "keras.Model", maps: np.ndarray, batch_size: int = 64, normalize: bool = True, cache: bool = False
) -> np.ndarray:
    """float32 (n, dim): what a network's tail, or any model, makes of feature maps or vectors (n, …), row by row.

    normalize : bring each vector to Euclidean length one, as extractors do; see `transfer.warmed_up` for when not to.
        Of a model that gives maps, such as `SplitNetwork.last_maps`, it has to be False.
    cache : keep the vectors under ``vectors/`` in the cache, by the content of each map and a fingerprint of the model
        (its layers and weights). Use it for a model that will be used again, not for every epoch of a training.

    Raises
    ------
    ValueError : ``cache`` is set, and the model gives maps.
    VectorStoreError : the vectors cannot be stored or read.
    """
    found = np.empty((len(maps), *tail.outputs[0].shape[1:]), np.float32)
    if not cache:
        for start, part in _through_tail(tail, maps, np.arange(len(maps)), batch_size):
            found[start : start + len(part)] = part
    elif found.ndim != 2:
        raise ValueError(f"{tail.name} gives maps {found.shape}; only vectors (n, dim) can be cached")
    elif len(maps):
        keys = [pixels_hash(one) for one in maps]
        with VectorStore(f"tail-{fingerprints.of_model(tail)[:16]}", found.shape[1]) as kept:
            known = kept.known(keys)
            first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
            missing = np.array(sorted(first.values()), np.int64)
            for start, part in _through_tail(tail, maps, missing, batch_size):
                kept.put([keys[row] for row in missing[start : start + len(part)]], part)
            found = kept.get(keys)
    if normalize:
        found = l2_normalize(found)
    return found


def _through_tail(tail: "keras.Model", maps: np.ndarray, rows: np.ndarray, batch_size: int):
    """(place of the first row, what the model gives), batch by batch."""
    for start in range(0, len(rows), batch_size):
        yield start, tail.predict_on_batch(np.asarray(maps[rows[start : start + batch_size]], np.float32))
