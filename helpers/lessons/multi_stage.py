"""Extracts the features of all stages and poolings of a network in one pass over the images."""

import struct
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from tqdm.auto import tqdm

from helpers import paths
from helpers.features.deep import NetworkExtractor, zoo_network
from helpers.features.file_hashes import content_hashes
from helpers.features.pooling import POOLINGS
from helpers.features.store import BlobStore, VectorStore
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.networks import specs
from helpers.vectors import l2_normalize


def stage_vectors(
    images: ImageSet,
    network: str = "resnet50",
    poolings: Sequence[str] = tuple(POOLINGS),
    progress: bool = True,
    keep_last: bool = False,
) -> dict[tuple[int, str], np.ndarray]:
    """(stage, pooling) → float32 (n, channels of the stage), equal to the features of ``extractor(network, stage, …)``.

    The vectors are cached batch by batch in the stores of these extractors, so a call that was interrupted continues.
    The maps are not cached: those of ResNet50's first stage alone take 3.2 MB per image.

    keep_last : also cache the maps of the last stage, for `last_maps`.

    Raises
    ------
    UnreadableImage : an image cannot be read; `reading.readable` drops those.
    WeightsUnavailable : the network's trained weights are not available.
    """
    row = specs.network(network)
    extractors = {
        (stage, pooling): NetworkExtractor(network, pooling=pooling, stage=stage)
        for stage in range(1, len(row.stages) + 1)
        for pooling in poolings
    }
    hashes = content_hashes(images.paths)
    with ExitStack() as opened:
        stores = {
            key: opened.enter_context(VectorStore(each.fingerprint, each.dim)) for key, each in extractors.items()
        }
        map_stores = [opened.enter_context(_MapStore(network))] if keep_last else []
        known = set.intersection(*(store.known(hashes) for store in [*stores.values(), *map_stores]))
        missing = {h: path for h, path in zip(hashes, images.paths, strict=True) if h not in known}
        if missing:
            side = next(iter(extractors.values())).size
            computes = zoo_network(row.name, [layer for layer, _ in row.stages], side)
            batches = reading.batches(list(missing.values()), side, batch_size=8, strict=True)
            contents = list(missing)
            with tqdm(
                total=len(missing), desc=f"{network} stages · {images.name}", unit="image",
                disable=None if progress else True,
            ) as bar:  # fmt: skip
                for rows, maps in computes.stream(batches):
                    keys = [contents[row] for row in rows]
                    for (stage, pooling), store in stores.items():
                        store.put(keys, l2_normalize(POOLINGS[pooling](maps[stage - 1])))
                    for map_store in map_stores:
                        map_store.put(keys, maps[-1])
                    bar.update(len(rows))
        return {key: store.get(hashes) for key, store in stores.items()}


#: Height, width and channels of a stored map.
_SHAPE = struct.Struct("<3I")


class _MapStore(BlobStore):
    """Feature maps of a network's last stage on disk, in float16, with the content hashes of the images as keys."""

    _content = "maps"

    def __init__(self, network: str):
        # The fingerprint depends on weights, layer, size and resize rule. Any pooling would do.
        fingerprint = NetworkExtractor(network, pooling="average").fingerprint
        super().__init__(paths.cache_dir() / "maps" / f"{fingerprint}.sqlite")

    def put(self, images: Sequence[bytes], maps: np.ndarray) -> None:
        """Store float (n, h, w, channels), in one transaction."""
        if not np.abs(maps).max(initial=0) <= np.finfo(np.float16).max:
            raise ValueError("the maps hold values that do not fit into float16")
        shape = _SHAPE.pack(*maps.shape[1:])
        self._put((p, shape + one.astype("<f2").tobytes()) for p, one in zip(images, maps, strict=True))

    def get(self, images: Sequence[bytes]) -> np.ndarray:
        """float32 (n, h, w, channels) of stored images, at least one, in the given order."""
        maps = {
            image: np.frombuffer(blob, "<f2", offset=_SHAPE.size).reshape(_SHAPE.unpack_from(blob))
            for image, blob in self._get(images)
        }
        return np.stack([maps[image] for image in images], dtype=np.float32)


def last_maps(images: ImageSet, network: str = "resnet50", progress: bool = True) -> np.ndarray:
    """float32 (n, h, w, channels): the last stage's map of each image, 401 kB each for ResNet50.

    The maps are cached on disk in float16. Missing ones are computed by `stage_vectors`, which raises the same errors.
    """
    hashes = content_hashes(images.paths)
    with _MapStore(network) as store:
        known = store.known(hashes)
        if missing := [row for row, h in enumerate(hashes) if h not in known]:
            stage_vectors(images.subset(missing), network, progress=progress, keep_last=True)
        return store.get(hashes)


def last_activations(images: ImageSet, dim: int, seed: int = 0) -> np.ndarray:
    """float32 (n, dim) of length one: ``dim`` of the numbers of each image's map by `last_maps`, always the same ones.

    They are not negative, with many zeros, like those of a dense layer with ReLU in VGG16, whose weights come only from
    Keras's download server.

    Raises ValueError: the map has fewer numbers.
    """
    maps = last_maps(images, progress=False)
    flat = maps.reshape(len(maps), -1)
    if not 0 < dim <= flat.shape[1]:
        raise ValueError(f"dim must be from 1 to {flat.shape[1]}, the numbers of a map of resnet50; got {dim}")
    chosen = np.random.default_rng(seed).choice(flat.shape[1], dim, replace=False)
    return l2_normalize(flat[:, np.sort(chosen)])
