"""Copies with similar perceptual hashes (`cv2.img_hash.PHash`: Zauner 2010), confirmed on small gray thumbnails."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.images import reading
from helpers.images.components import Components, Link
from helpers.images.imageset import ImageSet
from helpers.vectors import l2_normalize

#: Thumbnails are compared if at most this many of the hashes' 64 bits differ.
HASH_BITS = 10
#: Minimum correlation of two 32 × 32 gray thumbnails of the same image.
MIN_CORRELATION = 0.98
#: Width and height of the thumbnails.
SIDE = 32

#: Images whose decoding is requested at a time, and thumbnails that are compared at a time.
_CHUNK = 1024


def link_similar(images: ImageSet, found: Components, workers: int) -> np.ndarray:
    """Link copies that were saved again, resized or mirrored. One warning lists the images that cannot be read.

    found : the groups of identical files. One image of each is read.

    Returns
    -------
    int64: the rows that were read, ascending.
    """
    hashes, thumbs = np.zeros((len(images), 2), np.uint64), np.zeros((len(images), SIDE, SIDE), np.uint8)
    firsts = found.firsts()
    failures = _read(images, firsts, hashes, thumbs, workers)
    # All copies of an unreadable file are unreadable too, and the warning counts them.
    copies = np.flatnonzero(np.isin(found.labels, found.labels[list(failures)]))
    failures |= _read(images, np.setdiff1d(copies, firsts), hashes, thumbs, workers)
    reading.warn_unreadable([failures[row] for row in sorted(failures)], len(images))
    rows = np.setdiff1d(firsts, list(failures))
    compare(hashes, thumbs, rows, found)
    return rows


def compare(hashes: np.ndarray, thumbs: np.ndarray, rows: np.ndarray, found: Components) -> None:
    """Link rows with similar hashes and correlated thumbnails.

    Parameters
    ----------
    hashes : uint64 (n, 2), of each image and of its mirror image.
    thumbs : uint8 (n, `SIDE`, `SIDE`), gray.
    rows : int64, ascending.
    """
    for how, side in (("hash", 0), ("mirror", 1)):
        for position, row in enumerate(rows[:-1].tolist()):
            later = rows[position + 1 :]
            near = later[np.bitwise_count(hashes[later, 0] ^ hashes[row, side]) <= HASH_BITS]
            near = near[found.labels[near] != found.labels[row]]
            one = thumbs[row, :, ::-1] if side else thumbs[row]
            for other, correlation in _correlations(one, thumbs, near):
                found.join(Link(row, other, how, correlation))


def _read(
    images: ImageSet, rows: Sequence[int] | np.ndarray, hashes: np.ndarray, thumbs: np.ndarray, workers: int
) -> dict[int, reading.UnreadableImage]:
    """Write hashes (plain, mirrored) and thumbnails of some images. Returns the errors of unreadable ones by row."""
    import cv2

    def read(row: int) -> reading.UnreadableImage | None:
        try:
            gray = cv2.cvtColor(reading.read_image(images.paths[row]), cv2.COLOR_RGB2GRAY)
        except reading.UnreadableImage as error:
            return error
        for side, turned in enumerate((gray, np.ascontiguousarray(gray[:, ::-1]))):
            hashes[row, side] = cv2.img_hash.pHash(turned).view(np.uint64)[0, 0]
        thumbs[row] = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return None

    failures: dict[int, reading.UnreadableImage] = {}
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), _CHUNK):
            part = [int(row) for row in rows[start : start + _CHUNK]]
            errors = zip(part, pool.map(read, part), strict=True)
            failures |= {row: error for row, error in errors if error is not None}
    return failures


def _correlations(one: np.ndarray, thumbs: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, float]]:
    """(row, correlation) of the thumbnails that are correlated with one."""
    unit = centered(one[None])[0]
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        values = centered(thumbs[part]) @ unit
        for i in np.flatnonzero(values >= MIN_CORRELATION):
            yield int(part[i]), round(float(values[i]), 3)


def centered(thumbs: np.ndarray) -> np.ndarray:
    """float32 (n, pixels) of mean zero and length one, so that products are correlations; flat images are zero.

    thumbs : uint8 (n, …).
    """
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    return l2_normalize(flat - flat.mean(axis=1, keepdims=True))
