"""From a file to pixels: decode, turn upright, bring every color mode to RGB, resize, batch."""

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images.imageset import ImageSet

#: Images of more pixels are refused before they are decoded: 100 megapixels are 300 MB of RGB.
MAX_PIXELS = 100_000_000

#: How an image of any shape becomes a square. See `resize`.
RESIZE_RULES = ("squash", "crop", "pad")

WHITE = (255, 255, 255)

#: An image longer than this many times its width is cut to its middle before `resize` crops it.
LONGEST = 16

#: What Pillow raises for damaged content.
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
    """A file that is missing, broken, truncated, too large or no image; the message names it."""


class UnreadableImageWarning(UserWarning):
    """Some images were skipped; the message counts and names them."""


def read_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
    at_least: int | None = None,
) -> np.ndarray:
    """One image as uint8 (height, width, 3) RGB, upright, transparency on white.

    Gray, palette, alpha, CMYK and 16-bit images become 8-bit RGB; of an animation the first frame
    is taken; the EXIF orientation is applied.

    formats : Pillow's names of those that may be read; by default all.
    at_least : where both sides may be as short as this, a JPEG is decoded at a half, a quarter or an eighth of its
        size, which is much faster; not for vectors, which would differ a little.

    Raises
    ------
    UnreadableImage : the file is missing, empty, truncated, not an image, or has more than
        ``max_pixels`` pixels.
    """
    label = "the image given as bytes" if isinstance(source, bytes) else str(source)
    try:
        # Pillow warns at its own pixel limit (ours is checked below, as an error) and of each odd EXIF entry.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise UnreadableImage(
                        f"{label} has {width} × {height} pixels, more than {max_pixels:,}. "
                        "Make it smaller first; such sizes are also how decompression bombs look."
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
        raise UnreadableImage(f"{label} can't be decoded: {error}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{label} was refused: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF entry says; a damaged EXIF block says nothing, and the image stays as it is.

    `ImageOps.exif_transpose` does the same for a whole block, but fails where it can't write the block again.
    """
    try:
        turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION))
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
    """Gray of 16 bits, 32 bits or floating point to uint8.

    Integers are read as 16 bit, floats as 0 … 1 or 0 … 255, whatever fits; what is brighter sets white itself.
    """
    gray = np.nan_to_num(gray.astype(np.float64), posinf=0)
    brightest = gray.max(initial=0)
    usual = (1.0, 255.0) if mode.startswith("F") else (65535.0,)
    white = next((limit for limit in usual if brightest <= limit), brightest)
    return np.clip(np.round(gray / white * 255), 0, 255).astype(np.uint8)


def resize(pixels: np.ndarray, size: int | tuple[int, int], rule: str = "squash") -> np.ndarray:
    """An image as uint8 (height, width, 3) of the wanted size; bilinear with antialiasing (Pillow).

    rule :
        ``squash`` — both sides to the size, the shape is not kept (what the seed systems do);
        ``crop`` — short side to 256/224 of the size, then the center (ImageNet's usual test);
        ``pad`` — long side to the size, then white borders.
    size : side of a square, or (height, width).
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
        # At least one pixel: of a very long image a line stays.
        shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new("RGB", (width, height), WHITE)
        corner = (round((width - shape[0]) / 2), round((height - shape[1]) / 2))
        padded.paste(image.resize(shape, Image.Resampling.BILINEAR), corner)
        return np.asarray(padded)
    raise ValueError(f"rule must be one of {', '.join(RESIZE_RULES)}; got {rule!r}")


def _middle(image: Image.Image, longest: float) -> Image.Image:
    """At most ``longest`` times as long as wide: enlarged as a whole, a ribbon would fill the memory."""
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
    """Stream images in batches of one size; the next batch is decoded while this one is used.

    Yields
    ------
    rows : int64 (b,): which images these are.
    pixels : uint8 (b, height, width, 3).

    Unreadable images are left out: after the last batch one `UnreadableImageWarning` counts and names
    them; with ``strict`` the first one raises `UnreadableImage`.
    A list given as ``failures`` collects their errors instead, and nothing is warned of.
    Never more than two batches are in memory.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    sources = sources.paths if isinstance(sources, ImageSet) else tuple(sources)
    shape = (size, size) if isinstance(size, int) else tuple(size)

    def load(source):
        try:
            return resize(read_image(source), shape, rule)
        except UnreadableImage as error:
            return error

    warn = failures is None
    failures = [] if failures is None else failures
    starts = range(0, len(sources), batch_size)
    with ThreadPoolExecutor(workers) as pool:

        def submit(start):
            return [pool.submit(load, source) for source in sources[start : start + batch_size]]

        ahead = submit(0)
        try:
            for start in starts:
                loaded = [future.result() for future in ahead]
                ahead = submit(start + batch_size)
                bad = [item for item in loaded if isinstance(item, UnreadableImage)]
                if bad and strict:
                    raise bad[0]
                failures += bad
                good = [i for i, item in enumerate(loaded) if not isinstance(item, UnreadableImage)]
                if good:
                    yield np.array(good, dtype=np.int64) + start, np.stack([loaded[i] for i in good])
        finally:
            for future in ahead:
                future.cancel()
    if warn:
        warn_unreadable(failures, len(sources))


def warn_unreadable(failures: Sequence[UnreadableImage], total: int) -> None:
    """One warning for all images that were skipped, or none."""
    if failures:
        named = "\n  ".join(str(failure) for failure in failures[:10])
        more = f"\n  … and {len(failures) - 10} more" if len(failures) > 10 else ""
        warnings.warn(
            f"{len(failures)} of {total} images could not be read and were skipped:\n  {named}{more}",
            UnreadableImageWarning,
            stacklevel=3,
        )


def readable(images: ImageSet, strict: bool = False, workers: int = 2) -> ImageSet:
    """The set without the images that can't be read, after one warning that counts and names them.

    Raises
    ------
    UnreadableImage : there is one, and ``strict`` is set.
    """

    def problem(path):
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
