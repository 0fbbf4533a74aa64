"""Every stage of a network and every pooling at once: one pass over the pictures instead of one for each."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from tqdm.auto import tqdm

from helpers.features.deep import NetworkDescriber, zoo_network
from helpers.features.describer import length_one
from helpers.features.pooling import POOLINGS
from helpers.features.store import VectorStore, content_hash
from helpers.networks import zoo
from helpers.pictures import reading
from helpers.pictures.imageset import ImageSet


def stage_vectors(
    images: ImageSet,
    network: str = "resnet50",
    poolings: Sequence[str] = tuple(POOLINGS),
    size: int | None = None,
    resize: str = "squash",
    batch_size: int = 8,
    progress: bool = True,
) -> dict[tuple[int, str], np.ndarray]:
    """(stage, pooling) → float32 (n, channels of the stage): what the describer of that stage and pooling gives.

    They are kept where ``describer(network, stage=…, pooling=…)`` keeps its own, batch by batch: what either has
    computed, the other finds, and a call that was killed goes on where it was. The maps themselves are not kept; those
    of ResNet50's first stage alone take 3.2 MB a picture.

    batch_size : maps of so many pictures are in memory at a time, 6.1 MB each for ResNet50.

    Raises
    ------
    UnreadablePicture : a picture can't be read; `reading.readable` drops those.
    WeightsUnavailable : the network's trained weights can't be had.
    """
    row = zoo.network(network)
    describers = {
        (stage, pooling): NetworkDescriber(network, size=size, resize=resize, pooling=pooling, stage=stage)
        for stage in range(1, len(row.stages) + 1)
        for pooling in poolings
    }
    hashes = [content_hash(path) for path in images.paths]
    with ExitStack() as opened:
        stores = {
            key: opened.enter_context(VectorStore(each.fingerprint, each.dim)) for key, each in describers.items()
        }
        known = set.intersection(*(store.known(hashes) for store in stores.values()))
        missing = {h: path for h, path in zip(hashes, images.paths, strict=True) if h not in known}
        if missing:
            side = next(iter(describers.values())).size
            computes = zoo_network(row.name, [layer for layer, _ in row.stages], side)
            batches = reading.batches(list(missing.values()), side, resize, batch_size, strict=True)
            contents = list(missing)
            with tqdm(
                total=len(missing), desc=f"{network} stages · {images.name}", unit="picture",
                disable=None if progress else True,
            ) as bar:  # fmt: skip
                for rows, maps in computes.stream(batches):
                    for (stage, pooling), store in stores.items():
                        store.put([contents[row] for row in rows], length_one(POOLINGS[pooling](maps[stage - 1])))
                    bar.update(len(rows))
        return {key: store.get(hashes) for key, store in stores.items()}
