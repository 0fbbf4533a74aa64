"""Feature vectors of regions of images, from a shared feature map or from crops."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from helpers.features import pooling, store
from helpers.features.composite import Projected
from helpers.features.deep import NetworkExtractor
from helpers.features.extractor import FeatureExtractor
from helpers.features.file_hashes import content_hashes
from helpers.features.regions import BATCH, Images, Regions, RegionSource, computed_each, loaded
from helpers.features.vocabulary import one_thread
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, computed_ahead
from helpers.networks.detectors import Prepared
from helpers.vectors import l2_normalize

#: How the vector of a region is computed, see `region_vectors`.
METHODS = ("maps", "crops")
#: Images that are read before they are cropped; a large one takes 300 MB.
AHEAD = 3
#: Side of the network's input for shared maps, relative to the extractor's. A larger map shows smaller objects and
#: takes more time.
MAP_SCALE = 10 / 7
#: The input's side is a multiple of this number of pixels, by which networks reduce images.
_STRIDE = 32

#: Vectors of the boxes of one image, or why it cannot be read.
_Found = np.ndarray | UnreadableImage


def region_vectors(
    extractor: FeatureExtractor, images: Images, boxes: Sequence[np.ndarray], *, method: str | None = None,
    cache: bool = True, progress: bool = True,
) -> list[np.ndarray]:  # fmt: skip
    """The feature vectors of the boxes of each image: float32 (n, dim) for its n boxes.

    The regions of an image that cannot be read get rows of NaN. One warning lists these images.

    Parameters
    ----------
    boxes : floating (n, 4) for each image, see `helpers.features.regions`.
    method : ``maps`` computes one feature map of the image and pools it in each box (Girshick, Fast R-CNN, 2015);
        ``crops`` extracts the pixels of each box like an image, which takes one pass for each box. By default, the
        method that `region_method` returns.
    cache : store the vectors by the image's content and its boxes, in one entry for each image. Only those of files are
        stored.
    """
    method = method or region_method(extractor)
    if method not in METHODS or (method == "maps" and region_method(extractor) != "maps"):
        raise ValueError(f"{extractor.name} has no method {method!r} for regions; use {region_method(extractor)!r}")
    if isinstance(extractor, Projected):
        found = region_vectors(extractor.of, images, boxes, method=method, cache=cache, progress=progress)
        return [extractor.projection(each) for each in found]
    sources = images.paths if isinstance(images, ImageSet) else images
    if len(sources) != len(boxes):
        raise ValueError(f"each image needs its boxes, got {len(boxes)} for {len(sources)} images")
    found, failures = _stored(extractor, sources, boxes, method, cache, progress)
    reading.warn_unreadable(failures, len(sources))
    return found


def region_method(extractor: FeatureExtractor) -> str:
    """``maps`` if an extractor pools its vectors from a feature map of the squashed image, otherwise ``crops``.

    The feature map of a cropped image does not show all of it, and boxes of R-MAC's regions would be other regions.
    """
    extractor = _unprojected(extractor)
    pools = extractor.pools if isinstance(extractor, NetworkExtractor) else None
    return "maps" if pools in pooling.REGION_POOLINGS and extractor.resize_rule == "squash" else "crops"


def region_fingerprint(extractor: FeatureExtractor, method: str | None = None) -> str:
    """The extractor's fingerprint and the method. Vectors of regions with equal fingerprints can be compared."""
    method = method or region_method(extractor)
    return f"{extractor.fingerprint}-{method}{_map_size(_unprojected(extractor)) if method == 'maps' else ''}"


def _unprojected(extractor: FeatureExtractor) -> FeatureExtractor:
    while isinstance(extractor, Projected):
        extractor = extractor.of
    return extractor


def crop(image: np.ndarray, box: Sequence[float] | np.ndarray) -> np.ndarray:
    """The pixels of a box, x, y, width, height, at least one: a view of uint8 (height, width, 3).

    The sides are rounded to whole pixels, and limited to the image.
    """
    height, width = image.shape[:2]
    x, y, w, h = (float(side) for side in box)
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right, bottom = max(round(x + w), left + 1), max(round(y + h), top + 1)
    return image[top:bottom, left:right]


class Crop(NamedTuple):
    """A part of an image, as fractions of its width and height: 0 … 1 from the upper left corner."""

    left: float
    top: float
    width: float
    height: float

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The part of uint8 (height, width, 3), at least one pixel."""

        def span(start: float, length: float, side: int) -> slice:
            first = min(int(start * side), side - 1)
            return slice(first, max(first + 1, round((start + length) * side)))

        return pixels[span(self.top, self.height, pixels.shape[0]), span(self.left, self.width, pixels.shape[1])]


def _stored(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray],
    method: str, cache: bool, progress: bool,
) -> tuple[list[np.ndarray], list[UnreadableImage]]:  # fmt: skip
    """Read the vectors from the store, after computing and storing the missing ones; also the errors of images."""
    failures: list[UnreadableImage] = []
    compute = _from_maps if method == "maps" else _from_crops
    with store.RegionStore(region_fingerprint(extractor, method), extractor.dim) as kept:
        keys = _keys(sources, boxes) if cache else {}
        stored = dict(kept.get(keys.values()))
        found = [
            stored[key] if (key := keys.get(row)) in stored else np.full((len(each), extractor.dim), np.nan, np.float32)
            for row, each in enumerate(boxes)
        ]
        missing = [row for row, each in enumerate(boxes) if len(each) and keys.get(row) not in stored]
        computed = compute(extractor, [sources[row] for row in missing], [boxes[row] for row in missing])
        bar = tqdm(missing, f"{extractor.name} · regions", unit="image", disable=None if progress else True)
        pairs = zip(bar, computed, strict=True)
        # Each batch is one transaction; one for each image would take longer than its vectors.
        while batch := list(islice(pairs, BATCH)):
            failures += [vectors for _, vectors in batch if isinstance(vectors, UnreadableImage)]
            readable = {row: vectors for row, vectors in batch if not isinstance(vectors, UnreadableImage)}
            for row, vectors in readable.items():
                found[row] = vectors
            kept.put((keys[row], vectors) for row, vectors in readable.items() if row in keys)
    return found, failures


def _from_crops(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]
) -> Iterator[_Found]:
    for image, some in zip(loaded(sources, np.asarray, AHEAD), boxes, strict=True):
        if isinstance(image, UnreadableImage):
            yield image
        else:
            yield extractor.extract_arrays([crop(image, box) for box in some])


def _from_maps(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]
) -> Iterator[_Found]:
    assert isinstance(extractor, NetworkExtractor)
    mapper = extractor.at_size(_map_size(extractor))

    def with_maps(batch: list[Prepared]) -> Iterator[tuple[np.ndarray, Prepared]]:
        return zip(_maps(mapper, batch), batch, strict=True)

    items = computed_each(sources, partial(_map_input, mapper), with_maps)
    for item, some in zip(items, boxes, strict=True):
        yield item if isinstance(item, UnreadableImage) else _pool(extractor, *item, some)


def _map_input(mapper: NetworkExtractor, image: Image.Image) -> Prepared:
    return Prepared(reading.resize(image, mapper.size, mapper.resize_rule), image.width, image.height)


def _maps(mapper: NetworkExtractor, images: Sequence[Prepared]) -> list[np.ndarray]:
    return list(mapper.maps(np.stack([image.pixels for image in images]))) if images else []


def _pool(extractor: NetworkExtractor, fmap: np.ndarray, image: Prepared, boxes: np.ndarray) -> np.ndarray:
    """The vectors of the boxes of an image, from its map."""
    assert extractor.pools is not None
    scale = np.tile([fmap.shape[1] / image.width, fmap.shape[0] / image.height], 2)
    # The products are small: several threads take ten times the processor time of one.
    with one_thread():
        vectors = pooling.pool_boxes(fmap, np.asarray(boxes, np.float64) * scale, extractor.pools)
    return l2_normalize(vectors) if extractor.normalize else vectors


def find_regions(
    source: RegionSource, extractor: FeatureExtractor, files: Sequence[str | Path]
) -> list[Regions | None]:
    """`RegionSource.find`, which also stores what `region_vectors` would compute for the regions that it finds.

    Each image is read once for both, if its vectors are pooled from a map; otherwise, nothing is stored.
    """
    base = _unprojected(extractor)
    if region_method(base) != "maps":
        return source.find(files)
    assert isinstance(base, NetworkExtractor)
    mapper = base.at_size(_map_size(base))
    found: list[Regions | None] = [None] * len(files)
    skipped: list[UnreadableImage] = []
    contents = content_hashes(files)

    def load(image: Image.Image) -> tuple[object, Prepared]:
        return source.load(image), _map_input(mapper, image)

    def batches() -> Iterator[list[tuple[int, object, Prepared]]]:
        rows = enumerate(loaded(files, load, 2 * BATCH))
        while batch := list(islice(rows, BATCH)):
            skipped.extend(item for _, item in batch if isinstance(item, UnreadableImage))
            yield [(row, *item) for row, item in batch if not isinstance(item, UnreadableImage)]

    def searched(batch: list[tuple[int, object, Prepared]]) -> list[Regions]:
        return source.find_loaded([item for _, item, _ in batch])

    def pooled(missing: list[_Missing]) -> list[np.ndarray]:
        maps = _maps(mapper, [one.image for one in missing])
        return [_pool(base, fmap, one.image, one.boxes) for fmap, one in zip(maps, missing, strict=True)]

    with (
        store.RegionStore(region_fingerprint(base, "maps"), base.dim) as kept,
        ThreadPoolExecutor(2) as pool,
    ):

        def lookups() -> Iterator[list[_Missing]]:
            for batch, regions in computed_ahead(pool, searched, batches(), 1):
                wanted = []
                for (row, _, image), each in zip(batch, regions, strict=True):
                    found[row] = each
                    if len(each):
                        wanted.append(_Missing(_key(contents[row], each.boxes), image, each.boxes))
                known = kept.known(one.key for one in wanted)
                if missing := [one for one in wanted if one.key not in known]:
                    mapper.prepare_maps()
                yield missing

        # While the regions of a batch are found, the vectors of the one before it are computed.
        for missing, vectors in computed_ahead(pool, pooled, lookups(), 1):
            kept.put((one.key, some) for one, some in zip(missing, vectors, strict=True))
    reading.warn_unreadable(skipped, len(files))
    return found


class _Missing(NamedTuple):
    """An image whose vectors are not stored: their key, the map's input, and the boxes of its regions."""

    key: bytes
    image: Prepared
    boxes: np.ndarray


def _map_size(extractor: FeatureExtractor) -> int:
    return max(1, round(extractor.size * MAP_SCALE / _STRIDE)) * _STRIDE


def _keys(sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]) -> dict[int, bytes]:
    """Row of each file that has boxes → the key of its vectors in the store."""
    files = {row: each for row, each in enumerate(sources) if isinstance(each, str | Path) and len(boxes[row])}
    contents = content_hashes(files.values())
    return {row: _key(content, boxes[row]) for row, content in zip(files, contents, strict=True)}


def _key(content: bytes, boxes: np.ndarray) -> bytes:
    """The key of an image's vectors in the store: its content and its boxes."""
    data = content + np.ascontiguousarray(boxes, "<f4").tobytes()
    return hashlib.blake2b(data, digest_size=16, person=b"region").digest()
