"""Reading images: decode, rotate upright, convert to RGB, resize, and batch."""

import io
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageCms

from helpers import extras
from helpers.images import depths
from helpers.images.formats import accepts, is_heif, raw_reason, readable_formats
from helpers.images.imageset import ImageSet

#: Images with more pixels are reduced while they are decoded (JPEG), or rejected: 100 megapixels are 300 MB of RGB.
MAX_PIXELS = 100_000_000

#: A JPEG with more pixels is rejected, too. The decoder keeps all coefficients of a progressive JPEG, even if it
#: reduces the image: 6 bytes per pixel, 1.5 GB at this limit.
MAX_JPEG_PIXELS = 250_000_000

#: Factors by which the decoder of JPEG can reduce both sides.
SCALES = (1, 2, 4, 8)
_REDUCIBLE = ("JPEG", "MPO")

#: How images of any shape become square, see `resize`.
RESIZE_RULES = ("squash", "crop", "pad")

WHITE = (255, 255, 255)

#: Longer images are cut to this aspect ratio before `resize` crops them.
LONGEST = 16

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
#: Orientations that exchange width and height.
_SIDEWAYS = (5, 6, 7, 8)


Used = TypeVar("Used")
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class UnreadableImage(ValueError):
    """A file is missing, damaged, truncated, too large or not an image; the message names it."""


class UnreadableImageWarning(UserWarning):
    """Some images were skipped; the message lists them."""


def read_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
    at_least: int | None = None,
) -> np.ndarray:
    """One image as uint8 (height, width, 3) RGB, upright, transparency on white.

    Gray, palette, alpha, CMYK and 16-bit images become 8-bit RGB; `helpers.images.depths` tells how deep gray images
    are converted. Of an animation the first frame is read. The EXIF orientation is applied.

    Parameters
    ----------
    max_pixels : a JPEG with more is decoded at a half, a quarter or an eighth of its size. Other formats with more are
        rejected.
    formats : Pillow's names of the formats to accept, by default `helpers.images.formats.readable_formats`.
    at_least : decode a JPEG at a half, a quarter or an eighth of its size while both sides stay this long. This is much
        faster, but changes feature vectors a little.

    Raises
    ------
    UnreadableImage : the file is missing, empty, damaged, not an image or not understood, or it has more than
        ``max_pixels`` pixels, a JPEG more than `MAX_JPEG_PIXELS`.
    """
    return decode(source, np.asarray, max_pixels, formats, at_least)


def decode(
    source: str | Path | bytes, use: Callable[[Image.Image], Used], max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None, at_least: int | None = None,
) -> Used:  # fmt: skip
    """The result of ``use`` for the image that `read_image` returns, as Pillow's image: RGB and upright.

    The pixels are not copied, which takes as long as decoding them if the image is large. For the other arguments and
    the errors see `read_image`.
    """
    label = _label(source)
    with open_header(source, formats) as image:
        _reduce(image, label, max_pixels, at_least)
        with decoding(label):
            image.load()
        try:
            return use(_to_rgb(_upright(image), image))
        except depths.UnknownRange as error:
            raise UnreadableImage(f"{label} is not understood: {error}") from error


def upright_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of an upright image, as `read_image` returns it, from the header of its file.

    A PNG whose orientation comes after its pixels counts as upright, because only its decoder would find it.

    Raises
    ------
    UnreadableImage : the file is missing, damaged or not an image.
    """
    with open_header(source) as image:
        width, height = image.size
        # Pillow turns the size of a TIFF, and would decode a PNG without an orientation in search of one.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        return (height, width) if known and _orientation(image) in _SIDEWAYS else (width, height)


def reduction(width: int, height: int, max_pixels: int) -> int | None:
    """The smallest of the `SCALES` at which an image has at most ``max_pixels`` pixels; None if there is none."""
    return next((scale for scale in SCALES if -(-width // scale) * -(-height // scale) <= max_pixels), None)


@contextmanager
def open_header(source: str | Path | bytes, formats: Sequence[str] | None = None) -> Iterator[Image.Image]:
    """An image whose header was read, for its format and its metadata; its pixels are not decoded.

    formats : see `read_image`. Raises `UnreadableImage` if the file is missing, damaged or not an image.
    """
    label = _label(source)
    names = tuple(name for name in readable_formats() if formats is None or name in formats)
    with ExitStack() as stack:
        # Pillow warns about its own pixel limit (ours is checked later) and about each odd EXIF entry.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module="PIL")
        with decoding(label):
            # An open file, not a path, because Pillow maps some files into memory if it knows the path. Of a TIFF with
            # an orientation it then mixes up width and height (Pillow 13).
            file = stack.enter_context(_binary(source))
            try:
                image: Image.Image = Image.open(file, formats=names)
            except Image.DecompressionBombError:
                image = _open_large(file, names)
            except Image.UnidentifiedImageError as error:
                raise UnreadableImage(f"{label} {_unidentified(file)}") from error
        stack.enter_context(image)
        if reason := raw_reason(source, image):
            raise UnreadableImage(f"{label} {reason}")
        yield image


def _binary(source: str | Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _label(source: str | Path | bytes) -> str:
    return "the image given as bytes" if isinstance(source, bytes) else str(source)


def _open_large(file: IO[bytes], formats: Sequence[str]) -> Image.Image:
    """`Image.open` without Pillow's limit of 179 megapixels, which it checks before the size is known here."""
    file.seek(0)
    head = file.read(16)
    name = next(name for name in formats if accepts(name, head))
    file.seek(0)
    return Image.OPEN[name][0](file, "")


def _unidentified(file: IO[bytes]) -> str:
    """What is wrong with a file that no decoder accepts."""
    file.seek(0)
    head = file.read(12)
    if is_heif(head) and (remedy := extras.missing("heif")):
        return f"is a HEIC image. {remedy}"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "is a damaged TIFF file, or one with a kind of pixels that is not understood. Save it as RGB or gray."
    return "is not an image that can be read."


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """Turn every error into an `UnreadableImage`: for damaged content, a decoder may raise any error, also of a bug."""
    try:
        yield
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(f"{label} does not exist.") from error
    except OSError as error:
        text = f"cannot be read: {error.strerror}" if error.strerror else f"cannot be decoded: {error}"
        raise UnreadableImage(f"{label} {text}") from error
    except Exception as error:
        raise UnreadableImage(f"{label} cannot be decoded: {type(error).__name__}: {error}") from error


def _reduce(image: Image.Image, label: str, max_pixels: int, at_least: int | None) -> None:
    """Let the decoder of JPEG reduce the image; `UnreadableImage` if it stays too large."""
    width, height = image.size
    reducible = image.format in _REDUCIBLE
    scale = reduction(width, height, max_pixels)
    if scale is None or (scale > 1 and not (reducible and width * height <= MAX_JPEG_PIXELS)):
        most = min(MAX_JPEG_PIXELS, SCALES[-1] ** 2 * max_pixels)
        excess, remedy = f"more than {max_pixels:,}", "Make it smaller first."
        if reducible and width * height > MAX_JPEG_PIXELS:
            excess = f"more than {max(max_pixels, MAX_JPEG_PIXELS):,}"
        elif reducible:
            excess = f"and at 1/{SCALES[-1]} of both sides still more than {max_pixels:,}"
        elif width * height <= most:
            remedy = f"Make it smaller first, or save it as JPEG, which can have {most:,} pixels."
        raise UnreadableImage(
            f"{label} has {width} × {height} pixels, {excess}. {remedy} Images of this size can be decompression bombs."
        )
    if at_least is not None:
        scale = max(scale, *(each for each in SCALES if min(width, height) // at_least >= each), 1)
    if scale > 1 and reducible:
        with decoding(label):
            image.draft(None, (max(1, width // scale), max(1, height // scale)))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. `ImageOps.exif_transpose` does the same, but fails for some damaged EXIF blocks."""
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 … 8; 0 without one."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # the parser of a damaged block may raise any error; the pixels are intact
        return 0
    return orientation if isinstance(orientation, int) else 0


def _to_rgb(image: Image.Image, opened: Image.Image) -> Image.Image:
    """opened : the image before it was turned, which has the format and the tags."""
    if depths.is_deep(opened):
        return Image.fromarray(depths.to_8_bit(image, opened)).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.mode == "La":  # converts to LA only
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # a conversion copies a large image


def resize(image: np.ndarray | Image.Image, size: int | tuple[int, int], rule: str = "squash") -> np.ndarray:
    """Resize an image to uint8 (height, width, 3); bilinear with antialiasing (Pillow).

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB, or Pillow's image, which is not copied.
    size : side of a square, or (height, width).
    rule : ``squash`` resizes both sides and ignores the aspect ratio; ``crop`` resizes the short side to 256/224 of
        the size and crops the center, as is usual for ImageNet; ``pad`` resizes the long side and adds white borders.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    height, width = (size, size) if isinstance(size, int) else size
    if rule == "squash":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if rule == "crop":
        image = center_part(image, LONGEST * max(height / width, width / height))
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


def center_part(image: Image.Image, longest: float) -> Image.Image:
    """Cut an image to an aspect ratio of at most ``longest``, because a long strip would be enlarged to a huge one."""
    limit = int(longest * min(image.size)) + 1
    if max(image.size) <= limit:
        return image
    width, height = (min(side, limit) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def batches(
    sources: ImageSet | Sequence[str | Path | bytes], size: int | tuple[int, int], rule: str = "squash",
    batch_size: int = 32, strict: bool = False, workers: int = 2, failures: list[UnreadableImage] | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Stream images in batches of one size. The next batch is decoded while the current one is used.

    Parameters
    ----------
    strict : raise `UnreadableImage` for the first image that cannot be read. By default such images are skipped, and
        one `UnreadableImageWarning` lists them after the last batch.
    failures : a list that collects the errors of skipped images, instead of the warning.
    transform : uint8 (h, w, 3) → uint8 (height, width, 3), instead of `resize` with size and rule. Threads call it.

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
            if transform is not None:
                return transform(read_image(source))
            # Without two copies of all pixels.
            return decode(source, lambda image: resize(image, size, rule))
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(workers) as pool, closing(computed_ahead(pool, load, files, batch_size)) as computed:
        loaded = ((row, item) for row, (_, item) in enumerate(computed))
        while batch := list(islice(loaded, batch_size)):
            errors = [item for _, item in batch if isinstance(item, UnreadableImage)]
            if errors and strict:
                raise errors[0]
            skipped += errors
            images = {row: item for row, item in batch if isinstance(item, np.ndarray)}
            if images:
                yield np.array(list(images), dtype=np.int64), np.stack(list(images.values()))
    if failures is None:
        warn_unreadable(skipped, len(files))


def computed_ahead(
    pool: ThreadPoolExecutor, compute: Callable[[Item], Loaded], items: Iterable[Item], ahead: int
) -> Generator[tuple[Item, Loaded]]:
    """Call ``compute`` on each item in the threads of a pool; yields (item, result), in order.

    ahead : number of items that are taken and computed before an earlier result is used.
    """
    waiting: deque[tuple[Item, Future[Loaded]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(compute, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


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


def readable(images: ImageSet) -> ImageSet:
    """The set without the images that cannot be read, which one warning lists."""
    read = batches(images, 1, transform=lambda image: image[:1, :1])
    return images.subset([row for rows, _ in read for row in rows])
