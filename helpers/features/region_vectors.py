"""Feature vectors of regions of images, from a shared feature map or from crops."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from helpers.features import pooling, store
from helpers.features.composite import Projected
from helpers.features.deep import NetworkExtractor
from helpers.features.extractor import FeatureExtractor
from helpers.features.file_hashes import content_hashes
from helpers.features.regions import BATCH, Images, loaded
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage
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
    cache: bool = True, progress: bool = True, failures: list[UnreadableImage] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """The feature vectors of the boxes of each image: float32 (n, dim) for its n boxes.

    The regions of an image that cannot be read get rows of NaN.

    Parameters
    ----------
    boxes : floating (n, 4) for each image, see `helpers.features.regions`.
    method : ``maps`` computes one feature map of the image and pools it in each box (Girshick, Fast R-CNN, 2015);
        ``crops`` extracts the pixels of each box like an image, which takes one pass for each box. By default, the
        method that `region_method` returns.
    cache : store the vectors by the images' content and the boxes. Only those of files are stored.
    failures : collects the errors of images that cannot be read. Without it, one warning lists them.
    """
    method = method or region_method(extractor)
    if method not in METHODS or (method == "maps" and region_method(extractor) != "maps"):
        raise ValueError(f"{extractor.name} has no method {method!r} for regions; use {region_method(extractor)!r}")
    sources = images.paths if isinstance(images, ImageSet) else images
    if len(sources) != len(boxes):
        raise ValueError(f"each image needs its boxes, got {len(boxes)} for {len(sources)} images")
    skipped: list[UnreadableImage] = [] if failures is None else failures
    if isinstance(extractor, Projected):
        options = {"method": method, "cache": cache, "progress": progress}
        found = [extractor.projection(each) for each in region_vectors(
            extractor.of, sources, boxes, failures=skipped, **options  # type: ignore[arg-type]
        )]  # fmt: skip
    else:
        found = _stored(extractor, sources, boxes, method, cache, progress, skipped)
    if failures is None:
        reading.warn_unreadable(skipped, len(sources))
    return found


def region_method(extractor: FeatureExtractor) -> str:
    """``maps`` if an extractor pools its vectors from a feature map of the squashed image, otherwise ``crops``.

    The feature map of a cropped image does not show all of it, and boxes of R-MAC's regions would be other regions.
    """
    if isinstance(extractor, Projected):
        return region_method(extractor.of)
    pools = extractor.pools if isinstance(extractor, NetworkExtractor) else None
    return "maps" if pools in pooling.REGION_POOLINGS and extractor.resize_rule == "squash" else "crops"


def region_fingerprint(extractor: FeatureExtractor, method: str | None = None) -> str:
    """The extractor's fingerprint and the method. Vectors of regions with equal fingerprints can be compared."""
    method = method or region_method(extractor)
    base = extractor
    while isinstance(base, Projected):
        base = base.of
    return f"{extractor.fingerprint}-{method}{_map_size(base) if method == 'maps' else ''}"


def crop(image: np.ndarray, box: Sequence[float] | np.ndarray) -> np.ndarray:
    """The pixels of a box, x, y, width, height, at least one: a view of uint8 (height, width, 3).

    The sides are rounded to whole pixels, and limited to the image.
    """
    height, width = image.shape[:2]
    x, y, w, h = (float(side) for side in box)
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right, bottom = max(round(x + w), left + 1), max(round(y + h), top + 1)
    return image[top:bottom, left:right]


def _stored(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray],
    method: str, cache: bool, progress: bool, skipped: list[UnreadableImage],
) -> list[np.ndarray]:  # fmt: skip
    """Read the vectors from the store, after computing and storing the missing ones."""
    found = [np.full((len(each), extractor.dim), np.nan, np.float32) for each in boxes]
    compute = _from_maps if method == "maps" else _from_crops
    with store.VectorStore(region_fingerprint(extractor, method), extractor.dim) as kept:
        keys = _keys(sources, boxes) if cache else {}
        missing = [row for row, each in enumerate(boxes) if len(each)]
        if keys:
            known = kept.known(key for some in keys.values() for key in some)
            missing = [row for row in missing if row not in keys or not known.issuperset(keys[row])]
            for row in keys.keys() - set(missing):
                found[row] = kept.get(keys[row])
        computed = compute(extractor, [sources[row] for row in missing], [boxes[row] for row in missing])
        bar = tqdm(missing, f"{extractor.name} · regions", unit="image", disable=None if progress else True)
        for row, vectors in zip(bar, computed, strict=True):
            if isinstance(vectors, UnreadableImage):
                skipped.append(vectors)
                continue
            found[row] = vectors
            if row in keys:
                kept.put(keys[row], vectors)
    return found


def _from_crops(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]
) -> Iterator[_Found]:
    for image, some in zip(loaded(sources, lambda image: image, AHEAD), boxes, strict=True):
        if isinstance(image, UnreadableImage):
            yield image
        else:
            yield extractor.extract_arrays([crop(image, box) for box in some])


def _from_maps(
    extractor: FeatureExtractor, sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]
) -> Iterator[_Found]:
    assert isinstance(extractor, NetworkExtractor) and extractor.pools is not None
    mapper = extractor.at_size(_map_size(extractor))

    def prepared(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        return mapper.preprocess(image), image.shape[:2]

    items, left = loaded(sources, prepared, 2 * BATCH), iter(boxes)
    while batch := list(islice(items, BATCH)):
        readable = [item for item in batch if not isinstance(item, UnreadableImage)]
        maps = iter(mapper.maps(np.stack([pixels for pixels, _ in readable])) if readable else ())
        for item in batch:
            some = np.asarray(next(left), np.float64)
            if isinstance(item, UnreadableImage):
                yield item
                continue
            one, (height, width) = next(maps), item[1]
            cells = some * np.tile([one.shape[1] / width, one.shape[0] / height], 2)
            vectors = pooling.pool_boxes(one, cells, extractor.pools)
            yield l2_normalize(vectors) if extractor.normalize else vectors


def _map_size(extractor: FeatureExtractor) -> int:
    return max(1, round(extractor.size * MAP_SCALE / _STRIDE)) * _STRIDE


def _keys(sources: Sequence[str | Path | bytes | np.ndarray], boxes: Sequence[np.ndarray]) -> dict[int, list[bytes]]:
    """Row of each file among the images → the key in the store of each of its boxes."""
    files = {row: source for row, source in enumerate(sources) if isinstance(source, str | Path)}
    return {
        row: [
            hashlib.blake2b(content + np.asarray(box, "<f4").tobytes(), digest_size=16, person=b"region").digest()
            for box in boxes[row]
        ]
        for row, content in zip(files, content_hashes(files.values()), strict=True)
    }
