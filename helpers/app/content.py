"""What a file's bytes say before anything decodes them: what kind of picture it is, and whether it is only that.

The first bytes decide, never a name or a header that the sender chose. Refused is also what is made to cost too much
(`helpers.app.walking`), and what is something else as well: a file that one program takes for a picture and another for
an archive, a document or a script (a polyglot).
"""

import io
import re
import struct
import warnings
from dataclasses import dataclass

from PIL import Image

from helpers.app.errors import Refused
from helpers.app.walking import walk

#: Pillow's names of what is taken → the ending of a file that holds it.
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}

_STARTS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
}

#: Other kinds of file that are often taken for pictures, to say what it was.
_OTHERS = (
    ("an SVG drawing or another XML file", re.compile(rb"^(\xef\xbb\xbf)?\s*<(\?xml|svg|!--|!doctype svg)", re.I)),
    ("a web page", re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script)", re.I)),
    ("a PDF", re.compile(rb"^\s*%PDF-")),
    ("an archive", re.compile(rb"^(PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b)")),
    ("a HEIC or AVIF picture", re.compile(rb"^....ftyp", re.S)),
)

#: Inside a picture, in lower case, a sign of something else; each is too long to come about by chance.
_FOREIGN = (
    ("a web page or script", (b"<script", b"<html>", b"<html ", b"<!doctype html", b"<iframe ", b"<?php ", b"<?php\n")),
    ("an SVG drawing", (b"<svg xmlns",)),
    ("an archive", (b"pk\x05\x06\0\0\0\0", b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")),
)

#: First bytes that are a picture's and a script's at once: what follows the magic number opens a comment or assigns.
_SCRIPT_HEADS = re.compile(rb"^(GIF8[79]a(/\*|=[\t-\r -~])|BM(/\*|=[\t-\r -~])|\xff\xd8\xff[\xe0-\xef]/\*)", re.S)


@dataclass(frozen=True)
class Seen:
    """A picture before it is decoded."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def suffix(self) -> str:
        return FORMATS[self.format]


def inspect(content: bytes, max_pixels: int) -> Seen:
    """Which kind of picture, and how large.

    Raises
    ------
    Refused : 415 for what is not, or not only, a picture of `FORMATS`; 400 for an empty or damaged one, and for one
        whose pixels are too many or that is made to cost too much.
    """
    if not content:
        raise Refused(400, "The file is empty.")
    kind = _kind(content)
    _refuse_foreign(content, kind)
    tail = walk(content, kind)
    if kind == "GIF" and tail.strip(b"\0\r\n "):
        raise _polyglot(kind, "more behind its end")
    try:
        # Reads the header only. Its own limit of pixels warns first; ours is below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as picture:
                seen = Seen(kind, *picture.size)
    except Image.DecompressionBombError as error:
        raise _too_many("far too many", max_pixels) from error
    except Exception as error:  # whatever a decoder makes of hostile bytes
        raise Refused(400, f"The {kind} file is damaged: it can't be read as a picture.") from error
    if seen.pixels > max_pixels:
        raise _too_many(f"{seen.width} × {seen.height}", max_pixels)
    return seen


def _kind(content: bytes) -> str:
    for kind, starts in _STARTS.items():
        if content.startswith(starts):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    found = next((what for what, start in _OTHERS if start.match(content[:1024])), "something else")
    raise Refused(415, f"The file is not a picture that is taken here ({', '.join(FORMATS)}): it is {found}.")


def _refuse_foreign(content: bytes, kind: str) -> None:
    lower = content.lower()
    for what, signs in _FOREIGN:
        if any(sign in lower for sign in signs):
            raise _polyglot(kind, what)
    # Where readers of PDF look for it.
    if b"%PDF-" in content[:1024]:
        raise _polyglot(kind, "a PDF")
    if _SCRIPT_HEADS.match(content) and not _honest_bmp(content, kind):
        raise _polyglot(kind, "a script")


def _honest_bmp(content: bytes, kind: str) -> bool:
    """A BMP says its length where a script would go on."""
    return kind == "BMP" and struct.unpack_from("<I", content.ljust(6, b"\0"), 2)[0] == len(content)


def _polyglot(kind: str, what: str) -> Refused:
    return Refused(415, f"The {kind} file is not only a picture: it holds {what}. Save the picture alone.")


def _too_many(size: str, most: int) -> Refused:
    return Refused(400, f"The picture has {size} pixels, more than the {most:,} that are taken. Make it smaller.")
