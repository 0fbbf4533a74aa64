"""Format and size of an uploaded image, read from its bytes before it is decoded.

The first bytes decide, not a name or header that the client chose. Whatever else the file contains is dropped: the
service stores and sends only images that it encoded itself (`helpers.service.uploads.reencode`).
"""

import io
import re
import warnings
from dataclasses import dataclass

from PIL import Image

from helpers.service.container_checks import check_structure
from helpers.service.errors import ApiError

#: Formats that are accepted, by Pillow's names.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")

_SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
}

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
    """Format and size of an image."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def inspect(content: bytes, max_pixels: int) -> ImageInfo:
    """Read the header of an image.

    Raises
    ------
    ApiError : 400, the file is empty or damaged, or the image is too large or costs too much to decode; 415, the file
        is not an image in one of the `FORMATS`.
    """
    if not content:
        raise ApiError(400, "The file is empty.")
    kind = _kind(content)
    check_structure(content, kind)
    try:
        # Reads the header only. Pillow's own limit of pixels only warns; the limit below is the service's.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                info = ImageInfo(kind, *image.size)
    except Image.DecompressionBombError as error:
        raise _too_large("far too many", max_pixels) from error
    except Exception as error:  # hostile bytes can raise anything in a decoder
        raise ApiError(400, f"The {kind} file is damaged and cannot be read.") from error
    if info.pixels > max_pixels:
        raise _too_large(f"{info.width} × {info.height}", max_pixels)
    return info


def _kind(content: bytes) -> str:
    for kind, signatures in _SIGNATURES.items():
        if content.startswith(signatures):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    found = next((name for name, pattern in _OTHER_TYPES if pattern.match(content[:1024])), "of another type")
    raise ApiError(415, f"The file is not an image in a supported format ({', '.join(FORMATS)}): it is {found}.")


def _too_large(size: str, limit: int) -> ApiError:
    return ApiError(400, f"The image has {size} pixels. The limit is {limit:,} pixels.")
