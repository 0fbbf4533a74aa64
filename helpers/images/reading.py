"""Reading images: decode, rotate upright, convert to RGB, resize, and batch."""

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images.imageset import ImageSet

#: Larger images are rejected before they are decoded: 100 megapixels are 300 MB of RGB.
MAX_PIXELS = 100_000_000

#: How images of any shape become square, see `resize`.
RESIZE_RULES = ("squash", "crop", "pad")

WHITE = (255, 255, 255)

#: Longer images are cut to this aspect ratio before `resize` crops them.
LONGEST = 16

#: Errors that Pillow raises for damaged content.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, KeyError, TypeError, struct.error)

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A file is missing, damaged, truncated, too large or not an image; the message names it."""


class UnreadableImageWarning(UserWarning):
    """Some images were skipped; the message lists them."""


def read_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    formats: list[str] | tuple[str, ...] | None = None,
    at_least: int | None = None,
) -> np.ndarray:
    """One image as uint8 (height, width, 3) RGB, upright, transparency on white.

    Gray, palette, alpha, CMYK and 16-bit images become 8-bit RGB. Of an animation the first frame is read. The EXIF
    orientation is applied.

    Parameters
    ----------
    formats : Pillow's names of the formats to accept, by default all.
    at_least : decode a JPEG at a half, a quarter or an eighth of its size while both sides stay this long. This is much
        faster, but changes feature vectors a little.

    Raises
    ------
    UnreadableImage : the file is missing, empty, truncated, not an image, or has more than ``max_pixels`` pixels.
    """
    label = "the image given as bytes" if isinstance(source, bytes) else str(source)
    try:
        # Pillow warns about its own pixel limit (ours is checked below) and about each odd EXIF entry.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise UnreadableImage(
                        f"{label} has {width} × {height} pixels, more than {max_pixels:,}. "
                        "Make it smaller first. Images of this size can be decompression bombs."
                    )
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                image.load()
                return np.asarray(_to_rgb(_upright(image)))
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(f"{label} does not exist.") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"{label} is not an image that can be read.") from error
    except _DAMAGED as error:
        raise UnreadableImage(f"{label} cannot be decoded: {error}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{label} was rejected: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. `ImageOps.exif_transpose` does the same, but fails for some damaged EXIF blocks."""
    try:
        turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except _DAMAGED:
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(gray: np.ndarray, mode: str) -> np.ndarray:
    """Convert gray of 16 bits, 32 bits or floating point to uint8.

    The range is 16 bits for integers, and 0 … 1 or 0 … 255 for floats. If values exceed it, the maximum is white.
    """
    gray = np.nan_to_num(gray.astype(np.float64), posinf=0)
    brightest = gray.max(initial=0)
    usual = (1.0, 255.0) if mode.startswith("F") else (65535.0,)
    white = next((limit for limit in usual if brightest <= limit), brightest)
    return np.clip(np.round(gray / white * 255), 0, 255).astype(np.uint8)


def resize(pixels: np.ndarray, size: int | tuple[int, int], rule: str = "squash") -> np.ndarray:
    """Resize an image to uint8 (height, width, 3); bilinear with antialiasing (Pillow).

    Parameters
    ----------
    size : side of a square, or (height, width).
    rule : ``squash`` resizes both sides and ignores the aspect ratio; ``crop`` resizes the short side to 256/224 of
        the size and crops the center, as is usual for ImageNet; ``pad`` resizes the long side and adds white borders.
    """
    height, width = (size, size) if isinstance(size, int) else size
    image = Image.fromarray(pixels)
    if rule == "squash":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if rule == "crop":
        image = _middle(image, LONGEST * max(height / width, width / height))
        scale = max(height / image.height, width / image.width) * 256 / 224
        shape = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        left, top = (shape[0] - width) // 2, (shape[1] - height) // 2
        image = image.resize(shape, Image.Resampling.BILINEAR)
        return np.asarray(image.crop((left, top, left + width, top + height)))
    if rule == "pad":
        scale = min(height / image.height, width / image.width)
        # At least one pixel, so that a very long image becomes a line.
        shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new("RGB", (width, height), WHITE)
        corner = (round((width - shape[0]) / 2), round((height - shape[1]) / 2))
        padded.paste(image.resize(shape, Image.Resampling.BILINEAR), corner)
        return np.asarray(padded)
    raise ValueError(f"rule must be one of {', '.join(RESIZE_RULES)}; got {rule!r}")


def _middle(image: Image.Image, longest: float) -> Image.Image:
    """Cut an image to an aspect ratio of at most ``longest``, because a long strip would be enlarged to a huge one."""
    limit = int(longest * min(image.size)) + 1
    if max(image.size) <= limit:
        return image
    width, height = (min(side, limit) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def batches(
    sources: ImageSet | Sequence[str | Path | bytes],
    size: int | tuple[int, int],
    rule: str = "squash",
    batch_size: int = 32,
    strict: bool = False,
    workers: int = 2,
    failures: list[UnreadableImage] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stream images in batches of one size. The next batch is decoded while the current one is used.

    Parameters
    ----------
    strict : raise `UnreadableImage` for the first image that cannot be read. By default such images are skipped, and
        one `UnreadableImageWarning` lists them after the last batch.
    failures : a list that collects the errors of skipped images, instead of the warning.

    Yields
    ------
    rows : int64 (b,), positions of the images in ``sources``.
    pixels : uint8 (b, height, width, 3).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    files = sources.paths if isinstance(sources, ImageSet) else tuple(sources)
    skipped = [] if failures is None else failures

    def load(source: str | Path | bytes) -> np.ndarray | UnreadableImage:
        try:
            return resize(read_image(source), size, rule)
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(workers) as pool:

        def submit(start: int) -> list[Future[np.ndarray | UnreadableImage]]:
            return [pool.submit(load, source) for source in files[start : start + batch_size]]

        ahead = submit(0)
        try:
            for start in range(0, len(files), batch_size):
                loaded = [future.result() for future in ahead]
                ahead = submit(start + batch_size)
                errors = [item for item in loaded if isinstance(item, UnreadableImage)]
                if errors and strict:
                    raise errors[0]
                skipped += errors
                pixels = [item for item in loaded if isinstance(item, np.ndarray)]
                if pixels:
                    rows = [row for row, item in enumerate(loaded, start) if isinstance(item, np.ndarray)]
                    yield np.array(rows, dtype=np.int64), np.stack(pixels)
        finally:
            for future in ahead:
                future.cancel()
    if failures is None:
        warn_unreadable(skipped, len(files))


def warn_unreadable(failures: Sequence[UnreadableImage], total: int) -> None:
    """Issue one warning that lists the images that were skipped, if there are any."""
    if failures:
        named = "\n  ".join(str(failure) for failure in failures[:10])
        more = f"\n  … and {len(failures) - 10} more" if len(failures) > 10 else ""
        warnings.warn(
            f"{len(failures)} of {total} images could not be read and were skipped:\n  {named}{more}",
            UnreadableImageWarning,
            stacklevel=3,
        )


def readable(images: ImageSet, strict: bool = False, workers: int = 2) -> ImageSet:
    """The set without the images that cannot be read, which one warning lists.

    strict : raise `UnreadableImage` for the first of them instead.
    """

    def problem(path: Path) -> UnreadableImage | None:
        try:
            read_image(path)
        except UnreadableImage as error:
            return error
        return None

    with ThreadPoolExecutor(workers) as pool:
        problems = list(pool.map(problem, images.paths))
    failures = [error for error in problems if error is not None]
    if failures and strict:
        raise failures[0]
    warn_unreadable(failures, len(images))
    return images.subset(np.array([error is None for error in problems], dtype=bool)) if failures else images
