"""Uploaded images: the format and the size, read from the bytes before the image is decoded, and the pixels.

The first bytes decide, not a name or header that the client chose. Whatever else the file contains is dropped: the
service stores and sends only images that it encoded itself (`helpers.service.uploads.reencode`).
"""

import re
from dataclasses import dataclass

import numpy as np

from helpers.images.reading import MAX_JPEG_PIXELS, UnreadableImage, open_header, read_image, reduction
from helpers.service.container_checks import check_structure, has_one_scan
from helpers.service.errors import ApiError

#: Formats that are accepted, by Pillow's names, and how their files begin.
FORMATS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.S),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
}

#: A JPEG with a single scan may have this many times the pixels of other images, because its decoder halves both sides.
_JPEG_FACTOR = 4

#: Other file types that people upload, for the error message.
_OTHER_TYPES = (
    ("an SVG drawing or another XML file", re.compile(rb"^(\xef\xbb\xbf)?\s*<(\?xml|svg|!--|!doctype svg)", re.I)),
    ("a web page", re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script)", re.I)),
    ("a PDF", re.compile(rb"^\s*%PDF-")),
    ("an archive", re.compile(rb"^(PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b)")),
    ("a HEIC or AVIF image", re.compile(rb"^....ftyp", re.S)),
)


@dataclass(frozen=True)
class ImageInfo:
    """Format and size of an image.

    Parameters
    ----------
    scale : the decoder divides both sides by this number; see `helpers.images.reading.reduction`.
    """

    format: str
    width: int
    height: int
    scale: int = 1

    @property
    def pixels(self) -> int:
        """The number of pixels after decoding."""
        return -(-self.width // self.scale) * -(-self.height // self.scale)


@dataclass(frozen=True)
class UploadedImage:
    """A file that a client sent. name : None if the client gave none."""

    content: bytes
    name: str | None = None

    def inspect(self, max_pixels: int) -> ImageInfo:
        """Read the header of the image.

        max_pixels : only a JPEG with a single scan may have four times as many, because it is decoded at half size.

        Raises ApiError: 400, the file is empty or damaged, or the image is too large or costs too much to decode; 415,
        the file is not an image in one of the `FORMATS`.
        """
        if not self.content:
            raise ApiError(400, "The file is empty.", code="image_damaged")
        kind = _kind(self.content)
        check_structure(self.content, kind)
        try:
            with open_header(self.content, [kind]) as image:
                width, height = image.size
        except UnreadableImage as error:
            raise ApiError(400, f"The {kind} file is damaged and cannot be read.", code="image_damaged") from error
        if width * height <= max_pixels:
            return ImageInfo(kind, width, height)
        one_scan = kind == "JPEG" and has_one_scan(self.content)
        limit = min(_JPEG_FACTOR * max_pixels, MAX_JPEG_PIXELS) if one_scan else max_pixels
        scale = reduction(width, height, max_pixels)
        if width * height > limit or scale is None:
            what = "a JPEG with several scans" if kind == "JPEG" and not one_scan else kind
            message = f"The image has {width} × {height} pixels. The limit is {limit:,} pixels for {what}."
            raise ApiError(400, f"{message} Send a smaller image.", code="image_too_large")
        return ImageInfo(kind, width, height, scale)

    def decode(self, info: ImageInfo) -> np.ndarray:
        """uint8 (height, width, 3), upright. info : from `inspect`. Raises ApiError: 400, the pixels are damaged."""
        try:
            return read_image(self.content, max_pixels=info.pixels, formats=[info.format])
        except UnreadableImage as error:
            message = f"The {info.format} file is damaged or incomplete and cannot be decoded."
            raise ApiError(400, message, code="image_damaged") from error


def _kind(content: bytes) -> str:
    for kind, signature in FORMATS.items():
        if signature.match(content):
            return kind
    found = next((name for name, pattern in _OTHER_TYPES if pattern.match(content[:1024])), "of another type")
    raise ApiError(415, f"The file is not an image in a supported format ({', '.join(FORMATS)}): it is {found}.")
