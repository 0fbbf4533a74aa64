"""Formats of image files: which ones are read, by which suffixes, and how the others are named."""

import functools
import mimetypes
import warnings
from pathlib import Path

from PIL import Image, TiffImagePlugin

from helpers import extras

#: Formats of Pillow that are not images: weather data, other arrays, and videos. Pillow reads only their headers.
_NO_IMAGES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})

#: Formats that Pillow registers but `read_image` refuses.
REFUSED = _NO_IMAGES | frozenset(
    {
        # Drawings: EPS starts another program (Ghostscript), WMF is drawn by Windows only.
        "EPS", "WMF",
        # Measurements whose range of values is unknown; Pillow ignores the byte order and the scale of FITS.
        "FITS", "IM", "IMT", "MCIDAS", "SPIDER",
        # An envelope around a file of any format, also of these.
        "IPTC",
    }
)  # fmt: skip

#: Raw files of cameras. Many are TIFF files, of which Pillow would read the small preview.
RAW_SUFFIXES = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
        ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    }
)  # fmt: skip

#: Files that the extra ``heif`` reads.
HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

#: Image formats without a MIME type in Python, which nothing here reads.
_OTHER_IMAGES = frozenset({".djvu", ".exr", ".hdr", ".jxl", ".jxr", ".psb", ".svgz", ".xcf"})

#: Tried first, because most files have these formats.
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")

#: Kinds of gray TIFF that Pillow can unpack but does not list: byte order, photometric interpretation, sample format,
#: fill order, bits, extra samples → mode, raw mode.
_MORE_TIFF = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (2,), 1, (16,), ()): ("I", "I;16S"),
    (b"MM", 0, (2,), 1, (16,), ()): ("I", "I;16BS"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32B"),
}

_DNG_VERSION = 50706


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; those that are tried first come first.

    The first call loads all plugins of Pillow, and pillow-heif if it is installed.
    """
    Image.init()
    for kind, modes in _MORE_TIFF.items():
        TiffImagePlugin.OPEN_INFO.setdefault(kind, modes)
    if not extras.missing("heif"):
        with extras.importing("heif"):
            import pillow_heif
        pillow_heif.register_heif_opener()
    names = set(Image.OPEN) - REFUSED

    def order(name: str) -> tuple[bool, int, str]:
        # A format without a signature must not claim a file of another format.
        return Image.OPEN[name][1] is None, _COMMON.index(name) if name in _COMMON else len(_COMMON), name

    return tuple(sorted(names, key=order))


@functools.cache
def suffix_kinds() -> dict[str, str]:
    """Suffix in lower case → ``image`` for what is read, ``heif``, ``raw``, ``other image`` or ``other``.

    ``other image`` is a format of images that is not read, and ``other`` is no image, such as ``.txt`` and ``.mp4``.
    """
    # Pillow opens an MPO, a JPEG with several images, as a JPEG.
    read, refused = {*readable_formats(), "MPO"}, REFUSED - _NO_IMAGES
    registered = Image.registered_extensions().items()
    # Without the tables of the operating system, so that the result is the same on every computer.
    types = mimetypes.MimeTypes()
    kinds = dict.fromkeys(types.encodings_map, "other")
    for suffix, kind in types.types_map[True].items():
        kinds[suffix] = "other image" if kind.startswith("image/") else "other"
    kinds |= dict.fromkeys([*_OTHER_IMAGES, *(suffix for suffix, name in registered if name in refused)], "other image")
    kinds |= dict.fromkeys(RAW_SUFFIXES, "raw") | dict.fromkeys(HEIF_SUFFIXES, "heif")
    return kinds | dict.fromkeys([suffix for suffix, name in registered if name in read], "image")


def is_heif(head: bytes) -> bool:
    """Whether the first 12 bytes are those of a HEIC or HEIF image."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def accepts(name: str, head: bytes) -> bool:
    """Whether a file with these first 16 bytes may have a format; True if the format has no signature."""
    accept = Image.OPEN[name][1]
    found = accept is None or accept(head)
    # A text explains why this Pillow cannot read the format.
    return bool(found) and not isinstance(found, str)


def is_image(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of an image that can be read; nothing is decoded.

    Raises
    ------
    OSError : the file cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(16).ljust(16, b"\0")
        matching = [name for name in readable_formats() if Image.OPEN[name][1] is not None and accepts(name, head)]
        if not matching:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Image.open(file, formats=matching).close()
            return True
        except Image.DecompressionBombError:
            return True  # reading it reports its size
        except Exception:  # a decoder can raise any error for a file of another kind
            return False


def raw_reason(source: str | Path | bytes, image: Image.Image) -> str:
    """Why an opened image is only the preview of a raw file; empty for other files."""
    by_name = not isinstance(source, bytes) and Path(source).suffix.lower() in RAW_SUFFIXES
    by_tag = image.format == "TIFF" and _DNG_VERSION in getattr(image, "tag_v2", {})
    return "is a raw file of a camera, which is not read. Export it as JPEG." if by_name or by_tag else ""
