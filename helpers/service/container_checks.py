"""Limits on the structure of an uploaded image file, checked before it is decoded.

A small chunk, comment or directory entry can cost a decoder far more time and memory than its bytes suggest: Pillow
runs Python code for each chunk, copies all earlier comments to append one, and creates an object for each number in a
TIFF directory. A file of 20 MB can take ten seconds and a gigabyte this way. The limit on pixels does not help against
such files.
"""

import struct
from collections.abc import Iterator

from helpers.service.errors import ApiError

#: Scans of a progressive JPEG. Each is decoded for the whole image; cameras and editors write up to 12.
_JPEG_SCANS = 64
#: Segments of a JPEG before its pixels. A color profile has up to 255.
_JPEG_SEGMENTS = 2000
#: Exif segments of a JPEG, of up to 64 kB each.
_EXIF_SEGMENTS = 8
#: Markers of a JPEG: the start of a scan, and the frames that are not progressive.
_SCAN, _SEQUENTIAL = 0xDA, (0xC0, 0xC1)
#: Chunks of a PNG or WebP. Pixel chunks usually have at least 8 kB.
_CHUNKS = 20_000
#: Bytes of a metadata chunk of a PNG or WebP.
_METADATA_BYTES = 2**21
#: Blocks of a GIF, of up to 255 bytes each: all of them, and those without pixels.
_GIF_BLOCKS, _GIF_COMMENT_BLOCKS = 400_000, 4096
#: Values of one entry of a TIFF directory.
_TIFF_VALUES = 100_000

_PIXEL_CHUNKS = {b"IDAT", b"fdAT", b"VP8 ", b"VP8L", b"ALPH", b"ANMF"}


def check_structure(content: bytes, kind: str) -> None:
    """Reject a file whose structure would cost a decoder too much.

    kind : one of `helpers.service.content.FORMATS`.

    Raises ApiError: 400, the file has too many parts, or its directory is damaged; 415, a run-length encoded BMP.
    """
    {"JPEG": _jpeg, "PNG": _chunks, "WEBP": _chunks, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff}[kind](content, kind)


def _jpeg(content: bytes, kind: str) -> None:
    if content.count(b"\xff\xda") > _JPEG_SCANS:
        raise _too_many(kind, "scans")
    exif = 0
    for number, (_, start) in enumerate(_jpeg_segments(content)):
        exif += content[start + 4 : start + 10] == b"Exif\0\0"
        if exif > _EXIF_SEGMENTS:
            raise _too_many(kind, "Exif segments")
        if number >= _JPEG_SEGMENTS:
            raise _too_many(kind, "segments")


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The marker and the position of each segment up to the first scan; a fill byte counts as a segment, too."""
    start = 2
    while len(marker := content[start : start + 2]) == 2 and marker[0] == 0xFF:
        yield marker[1], start
        if marker[1] == _SCAN:
            return
        start += 1 if marker[1] == 0xFF else 2 + int.from_bytes(content[start + 2 : start + 4], "big")


def has_one_scan(content: bytes) -> bool:
    """Whether a JPEG has all of its pixels in one scan, so that the decoder keeps only a few rows of it in memory.

    For a progressive JPEG, or one with a scan for each channel, the decoder keeps the coefficients of the whole image.
    """
    channels = None
    for marker, start in _jpeg_segments(content):
        if marker in _SEQUENTIAL:
            channels = content[start + 9 : start + 10]
        elif marker == _SCAN:
            return channels is not None and content[start + 4 : start + 5] == channels
    return False


def _chunks(content: bytes, kind: str) -> None:
    chunks = _chunks_of(content, 8, ">I4s", 12) if kind == "PNG" else _chunks_of(content, 12, "<4sI", 8)
    for number, (name, length) in enumerate(chunks):
        if number > _CHUNKS:
            raise _too_many(kind, "chunks")
        if name not in _PIXEL_CHUNKS and length > _METADATA_BYTES:
            raise _too_many(kind, "bytes of metadata")


def _chunks_of(content: bytes, start: int, header: str, overhead: int) -> Iterator[tuple[bytes, int]]:
    while start + 8 <= len(content):
        first, second = struct.unpack_from(header, content, start)
        name, length = (second, first) if isinstance(second, bytes) else (first, second)
        yield name, length
        # Chunks of a WebP begin at even offsets.
        start += overhead + length + (length % 2 if overhead == 8 else 0)


def _bmp(content: bytes, kind: str) -> None:
    # Pillow decodes run-length encoding in Python, byte by byte.
    if content[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise ApiError(415, "The BMP file is run-length encoded, which this service does not accept. Save it as PNG.")


def _tiff(content: bytes, kind: str) -> None:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (entries,) = struct.unpack_from(order + "H", content, start)
        for entry in range(entries):
            _, type_, count = struct.unpack_from(order + "HHI", content, start + 2 + 12 * entry)
            # Pillow keeps bytes and text as they are.
            if type_ not in (1, 2, 7) and count > _TIFF_VALUES:
                raise _too_many(kind, "values in a directory entry")
    except struct.error as error:
        raise ApiError(
            400, "The TIFF file is damaged: its directory lies outside the file.", code="image_damaged"
        ) from error


def _gif(content: bytes, kind: str) -> None:
    blocks = comments = 0
    try:
        position = 13 + _palette_bytes(content[10])
        while content[position] in (0x2C, 0x21):
            pixels = content[position] == 0x2C
            position += 11 + _palette_bytes(content[position + 9]) if pixels else 2
            while content[position]:
                position += content[position] + 1
                blocks += 1
                comments += not pixels
                if blocks > _GIF_BLOCKS or comments > _GIF_COMMENT_BLOCKS:
                    raise _too_many(kind, "blocks")
            position += 1
    except IndexError:
        return  # the file is incomplete: the decoder reports it


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _too_many(kind: str, what: str) -> ApiError:
    message = f"The {kind} file has too many {what} to be decoded safely. Export the image again."
    return ApiError(400, message, code="image_damaged")
