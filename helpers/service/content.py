"""Format and size of an uploaded image, read from its bytes before it is decoded.

The first bytes decide, never a name or a header that the sender chose. What else a file holds does not matter: the
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

_STARTS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
}

#: Other kinds of file that are often taken for images, to say what it was.
_OTHERS = (
    ("an SVG drawing or another XML file", re.compile(rb"^(\xef\xbb\xbf)?\s*<(\?xml|svg|!--|!doctype svg)", re.I)),
    ("a web page", re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script)", re.I)),
    ("a PDF", re.compile(rb"^\s*%PDF-")),
    ("an archive", re.compile(rb"^(PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b)")),
    ("a HEIC or AVIF image", re.compile(rb"^....ftyp", re.S)),
)


@dataclass(frozen=True)
class ImageInfo:
    """An image before it is decoded."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def inspect(content: bytes, max_pixels: int) -> ImageInfo:
    """Which kind of image, and how large.

    Raises
    ------
    Refused : 415 for what is not an image of `FORMATS`; 400 for an empty or damaged one, and for one with too many
        pixels, or a structure that would cost a decoder too much.
    """
    if not content:
        raise ApiError(400, "The file is empty.")
    kind = _kind(content)
    check_structure(content, kind)
    try:
        # Reads the header only. Its own limit of pixels warns first; ours is below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                info = ImageInfo(kind, *image.size)
    except Image.DecompressionBombError as error:
        raise _too_many("far too many", max_pixels) from error
    except Exception as error:  # whatever a decoder makes of hostile bytes
        raise ApiError(400, f"The {kind} file is damaged: it can't be read as an image.") from error
    if info.pixels > max_pixels:
        raise _too_many(f"{info.width} × {info.height}", max_pixels)
    return info


def _kind(content: bytes) -> str:
    for kind, starts in _STARTS.items():
        if content.startswith(starts):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    found = next((what for what, start in _OTHERS if start.match(content[:1024])), "something else")
    raise ApiError(415, f"The file is not an image that is taken here ({', '.join(FORMATS)}): it is {found}.")


def _too_many(size: str, most: int) -> ApiError:
    return ApiError(400, f"The image has {size} pixels, more than the {most:,} that are taken. Make it smaller.")
