"""Feature vectors of regions of images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from helpers.features import store
from helpers.features.extractor import FeatureExtractor
from helpers.features.file_hashes import content_hashes
from helpers.features.regions import Images, loaded
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage

#: Images that are read before they are used; a large one takes 300 MB.
AHEAD = 3


def region_vectors(
    extractor: FeatureExtractor, images: Images, boxes: Sequence[np.ndarray], *, cache: bool = True,
    progress: bool = True, failures: list[UnreadableImage] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """The feature vectors of the boxes of each image: float32 (n, dim) for its n boxes.

    The regions of an image that cannot be read get rows of NaN.

    Parameters
    ----------
    boxes : floating (n, 4) for each image, see `helpers.features.regions`.
    cache : store the vectors by the images' content and the boxes. Only those of files are stored.
    failures : collects the errors of images that cannot be read. Without it, one warning lists them.
    """
    sources = images.paths if isinstance(images, ImageSet) else images
    if len(sources) != len(boxes):
        raise ValueError(f"each image needs its boxes, got {len(boxes)} for {len(sources)} images")
    found = [np.full((len(each), extractor.dim), np.nan, np.float32) for each in boxes]
    skipped: list[UnreadableImage] = [] if failures is None else failures
    with store.VectorStore(f"{extractor.fingerprint}-crops", extractor.dim) as kept:
        keys = _keys(sources, boxes) if cache else {}
        missing = [row for row, each in enumerate(boxes) if len(each)]
        if keys:
            known = kept.known(key for some in keys.values() for key in some)
            missing = [row for row in missing if row not in keys or not known.issuperset(keys[row])]
            for row in keys.keys() - set(missing):
                found[row] = kept.get(keys[row])
        images_of = loaded([sources[row] for row in missing], lambda image: image, AHEAD)
        bar = tqdm(missing, f"{extractor.name} · regions", unit="image", disable=None if progress else True)
        for row, image in zip(bar, images_of, strict=True):
            if isinstance(image, UnreadableImage):
                skipped.append(image)
                continue
            found[row] = extractor.extract_arrays([crop(image, box) for box in boxes[row]])
            if row in keys:
                kept.put(keys[row], found[row])
    if failures is None:
        reading.warn_unreadable(skipped, len(sources))
    return found


def crop(image: np.ndarray, box: Sequence[float] | np.ndarray) -> np.ndarray:
    """The pixels of a box, x, y, width, height, at least one: a view of uint8 (height, width, 3).

    The sides are rounded to whole pixels, and limited to the image.
    """
    height, width = image.shape[:2]
    x, y, w, h = (float(side) for side in box)
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right, bottom = max(round(x + w), left + 1), max(round(y + h), top + 1)
    return image[top:bottom, left:right]


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
