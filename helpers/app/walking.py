"""Walking: through a picture file from part to part, before a decoder does, to refuse what is made to cost too much.

The parts that a file is cut into, and what stands beside its pixels, cost a decoder far more time or memory than they
have bytes: Pillow takes a step of Python for each, joins comments by copying all before them, and makes an object of
each number of a directory. The pixels themselves are bounded by the header.
"""

import struct
from collections.abc import Iterator

from helpers.app.errors import Refused

#: Passes of a progressive JPEG, each of which is decoded for the whole picture; cameras and editors write up to 12.
_SCANS = 64
#: Segments of a JPEG before its pixels. A profile is cut into up to 255 of them.
_SEGMENTS = 2000
#: Those of them that hold notes of the camera, of 64 kB each.
_NOTES = 8
#: Parts of a PNG or WebP; pixels come in parts of 8 kB and more.
_PARTS = 20_000
#: Bytes of a part of a PNG or WebP that holds no pixels.
_BESIDE = 2**21
#: Blocks of a GIF, which have up to 255 bytes, and those of them that hold no pixels.
_BLOCKS, _BLOCKS_BESIDE = 400_000, 4096
#: Numbers of one entry of a TIFF's directory.
_NUMBERS = 100_000

_PIXELS = {b"IDAT", b"fdAT", b"VP8 ", b"VP8L", b"ALPH", b"ANMF"}


def walk(content: bytes, kind: str) -> bytes:
    """What follows the end of a picture, as far as that is looked at: of a GIF.

    kind : one of `helpers.app.content.FORMATS`.

    Raises
    ------
    Refused : 400, it would cost too much, or is damaged; 415, it is coded in a way that would.
    """
    if kind == "GIF":
        return _gif(content)
    {"JPEG": _jpeg, "PNG": _chunks, "WEBP": _chunks, "BMP": _bmp, "TIFF": _tiff}[kind](content, kind)
    return b""


def _jpeg(content: bytes, kind: str) -> None:
    if content.count(b"\xff\xda") > _SCANS:
        raise _too_much(kind, f"has more than {_SCANS} scans")
    place, notes = 2, 0
    for _ in range(_SEGMENTS):
        marker = content[place : place + 2]
        if len(marker) < 2 or marker[0] != 0xFF or marker == b"\xff\xda":
            return
        if marker == b"\xff\xff":  # fills up
            place += 1
            continue
        notes += content[place + 4 : place + 10] == b"Exif\0\0"
        if notes > _NOTES:
            raise _too_much(kind, "has too many notes of a camera")
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    raise _too_much(kind, "has too many segments")


def _chunks(content: bytes, kind: str) -> None:
    parts = _png_chunks(content) if kind == "PNG" else _webp_chunks(content)
    for number, (name, length) in enumerate(parts):
        if number > _PARTS:
            raise _too_much(kind, "has too many parts")
        if name not in _PIXELS and length > _BESIDE:
            raise _too_much(kind, "holds too much beside its pixels")


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    place = 8
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        yield name, length
        place += 12 + length


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    place = 12
    while place + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        yield name, length
        place += 8 + length + length % 2


def _bmp(content: bytes, kind: str) -> None:
    # Pillow decodes that in Python, byte by byte.
    if content[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise Refused(415, "The BMP file is run-length encoded, which is not taken here. Save it as PNG.")


def _tiff(content: bytes, kind: str) -> None:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (place,) = struct.unpack_from(order + "I", content, 4)
        (entries,) = struct.unpack_from(order + "H", content, place)
        for entry in range(entries):
            _, type_, count = struct.unpack_from(order + "HHI", content, place + 2 + 12 * entry)
            # Bytes and text stay what they are.
            if type_ not in (1, 2, 7) and count > _NUMBERS:
                raise _too_much(kind, "is cut into too many parts")
    except struct.error as error:
        raise Refused(400, "The TIFF file is damaged: its directory lies outside of it.") from error


def _gif(content: bytes) -> bytes:
    """What follows the end; nothing where it has none."""
    blocks = beside = 0
    try:
        place = 13 + _palette(content[10])
        while content[place] != 0x3B:
            pixels = content[place] == 0x2C
            if not pixels and content[place] != 0x21:
                return b""
            place += 11 + _palette(content[place + 9]) if pixels else 2
            while content[place]:
                place += content[place] + 1
                blocks += 1
                beside += not pixels
                if blocks > _BLOCKS or beside > _BLOCKS_BESIDE:
                    raise _too_much("GIF", "has too many blocks")
            place += 1
    except IndexError:
        return b""
    return content[place + 1 :]


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _too_much(kind: str, what: str) -> Refused:
    return Refused(400, f"The {kind} file {what}, as files have that are made to hold up a service. Save it again.")
