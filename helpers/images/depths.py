"""Gray images of more than 8 bits, and of signed and floating-point values, as 8 bits.

What the file tells is respected: the number of bits, the sign, whether 0 is white (TIFF's photometric interpretation)
and the range of the values (SMinSampleValue and SMaxSampleValue). Otherwise the values decide, but only between the
depths of sensors and of files:

- Integers: white is the largest value of the smallest depth (8, 10, 12, 14, 16, 24 or 32 bits) that has all values.
  Microscopes, X-ray and industrial cameras store 10 to 14 bits in files of 16 bits. A 16-bit photograph keeps its
  brightness if one of its pixels exceeds a quarter of the range; a darker one becomes brighter, by a power of two.
- Signed integers with a negative value: black is the smallest value of that depth. Without one, they count as unsigned.
- Floats: 0 … 1, or integers as above. Values that leave such a range by up to 5 % are clipped. All others, such as
  -1 … 1 or 0 … 8, are not understood.
"""

from collections.abc import Mapping
from numbers import Real

import numpy as np
from PIL import Image

#: Depths of sensors and of files, in bits.
DEPTHS = (8, 10, 12, 14, 16, 24, 32)

#: Floats may leave their range by this part of it: interpolation overshoots.
OVERSHOOT = 0.05
#: Floats between 1 and this value may be a bright 0 … 1 or a dark 0 … 255.
LOWEST_INTEGER_WHITE = 16.0

#: Tags of TIFF.
_BITS, _PHOTOMETRIC, _MAX, _FORMAT, _SIGNED_MIN, _SIGNED_MAX = 258, 262, 281, 339, 340, 341
_SIGNED, _MIN_IS_WHITE = 2, 0

#: Decoders of these formats scale their values to 16 bits.
_SCALED = ("PPM", "JPEG2000")

#: Raise it when the pixels of deep images change.
VERSION = 2

#: The first bytes of TIFF (also BigTIFF) and of PFM, a format of floats. Not all of these files are deep.
_MAYBE_DEEP = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"Pf", b"PF")

_CHUNK = 1 << 20


class UnknownRange(ValueError):
    """The file does not tell which values are black and white; the message has its range."""


def may_be_deep(head: bytes) -> bool:
    """Whether a file with these first 32 bytes may be a deep image, whose pixels depend on `VERSION`."""
    gray_png = head.startswith(b"\x89PNG\r\n\x1a\n") and head[24:26] == bytes((16, 0))  # 16 bits, gray
    return gray_png or head.startswith(_MAYBE_DEEP)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits per pixel and one channel, or signed values."""
    return image.mode.startswith(("I", "F")) or (image.mode == "L" and _tag(_tags(image), _FORMAT) == _SIGNED)


def to_8_bit(image: Image.Image, opened: Image.Image) -> np.ndarray:
    """Convert a deep gray image to uint8 (height, width).

    opened : the image as it was opened, which has the format and the tags.

    Raises
    ------
    UnknownRange : floating-point values with an unknown range.
    """
    tags = _tags(opened)
    values = np.asarray(image)
    signed = _tag(tags, _FORMAT) == _SIGNED
    if values.dtype.kind != "f":
        bits = _tag(tags, _BITS) or 8 * values.dtype.itemsize
        if signed and values.dtype == np.uint8:
            values = values.view(np.int8)
        elif not signed and values.dtype == np.int32:
            values = values.view(np.uint32)
    if opened.format in _SCALED and values.dtype.kind != "f":
        black, white = 0.0, 65535.0
    elif values.dtype.kind == "f":
        black, white = _float_range(values, tags)
    elif signed:
        black, white = _signed_range(values, tags, int(bits))
    else:
        black, white = _unsigned_range(values, tags, int(bits))
    if tags and _tag(tags, _PHOTOMETRIC) == _MIN_IS_WHITE:
        black, white = white, black
    return _scaled(values, black, white)


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """uint8: black becomes 0 and white 255. Infinite values and NaN become 0."""
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, len(flat), _CHUNK):  # in chunks, because float64 takes eight times the memory
        part = flat[start : start + _CHUNK].astype(np.float64)
        part = np.where(np.isfinite(part), (part - black) * (255 / (white - black)), 0)
        scaled[start : start + _CHUNK] = np.clip(np.rint(part), 0, 255)
    return scaled.reshape(values.shape)


def _unsigned_range(values: np.ndarray, tags: Mapping, bits: int) -> tuple[float, float]:
    if bits % 8:  # packed, such as 12 bits
        return 0.0, float(2**bits - 1)
    # MaxSampleValue is only a statistic, but a dark image of a 12-bit sensor shows its depth there.
    stated = _tag(tags, _MAX) or 0
    top = max(int(values.max(initial=0)), int(stated) if stated < 2**bits else 0)
    return 0.0, float(next(2**depth - 1 for depth in DEPTHS if top < 2**depth))


def _signed_range(values: np.ndarray, tags: Mapping, bits: int) -> tuple[float, float]:
    if (stated := _stated_range(tags)) is not None:
        return stated
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    depths = [depth for depth in DEPTHS if depth < bits]
    if low >= 0:
        return 0.0, float(next(2**depth - 1 for depth in [*depths, bits - 1] if high < 2**depth))
    half = next(2 ** (depth - 1) for depth in [*depths, bits] if -(2 ** (depth - 1)) <= low and high < 2 ** (depth - 1))
    return float(-half), float(half - 1)


def _float_range(values: np.ndarray, tags: Mapping) -> tuple[float, float]:
    if (stated := _stated_range(tags)) is not None:
        return stated
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    integers = [float(2**depth - 1) for depth in DEPTHS if depth <= 16] if high >= LOWEST_INTEGER_WHITE else []
    white = next((white for white in (1.0, *integers) if high <= white * (1 + OVERSHOOT)), None)
    if white is not None and low >= -white * OVERSHOOT:
        return 0.0, white
    raise UnknownRange(
        f"its floating-point values, {low:g} … {high:g}, have no known range. Save it with 8 or 16 bits, or with "
        "values of 0 … 1."
    )


def _stated_range(tags: Mapping) -> tuple[float, float] | None:
    low, high = _tag(tags, _SIGNED_MIN), _tag(tags, _SIGNED_MAX)
    return (float(low), float(high)) if low is not None and high is not None and low < high else None


def _tags(image: Image.Image) -> Mapping:
    """The tags of a TIFF file; empty for other formats."""
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def _tag(tags: Mapping, number: int) -> float | None:
    """The value of a tag, the first one if it has several; None if it is missing or not a number."""
    value = tags.get(number)
    if isinstance(value, tuple):
        value = value[0] if value else None
    # Rational numbers of TIFF may have the denominator 0.
    return float(value) if isinstance(value, Real) and np.isfinite(float(value)) else None
