"""Details of an image file that people want to see: its size, when it was taken, and with which camera."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import ExifTags, Image

from helpers.images.reading import decoding, open_header, upright_size

_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d:\d\d:\d\d)")
#: Characters of a camera's name.
_LONGEST = 100


@dataclass(frozen=True)
class FileDetails:
    """What a file says about its image.

    Attributes
    ----------
    width, height : of the upright image, in pixels.
    bytes : of the file.
    format : Pillow's name, such as JPEG.
    modified : of the file, in UTC, as in ``2024-05-31T18:04:09Z``.
    taken : when the image was taken, in the time of the camera, as in ``2024-05-31T18:04:09``; None if it is unknown.
    camera : the maker and the model; None if they are unknown.
    """

    width: int
    height: int
    bytes: int
    format: str
    modified: str
    taken: str | None
    camera: str | None


def file_details(path: Path) -> FileDetails:
    """The details of one file; its pixels are not decoded.

    Raises
    ------
    UnreadableImage : the file is missing, damaged or not an image.
    """
    width, height = upright_size(path)
    with decoding(str(path)):
        status = path.stat()
    with open_header(path) as image:
        taken, camera = _exif(image)
        name = image.format or ""
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC).isoformat().replace("+00:00", "Z")
    return FileDetails(width, height, status.st_size, name, modified, taken, camera)


def _exif(image: Image.Image) -> tuple[str | None, str | None]:
    """When and with which camera an image was taken."""
    # Pillow would decode a PNG without an EXIF block in search of one.
    if image.format == "PNG" and "exif" not in image.info:
        return None, None
    try:
        tags = image.getexif()
        part = tags.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # the parser of a damaged block may raise any error
        return None, None
    taken = _date(part.get(ExifTags.Base.DateTimeOriginal)) or _date(tags.get(ExifTags.Base.DateTime))
    maker, model = _text(tags.get(ExifTags.Base.Make)), _text(tags.get(ExifTags.Base.Model))
    camera = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    return taken, camera.strip()[:_LONGEST] or None


def _date(value: object) -> str | None:
    """A tag as a date; None for other values, such as the zeros of a camera whose clock is not set."""
    found = _DATE.match(_text(value))
    if found is None:
        return None
    date = f"{found[1]}-{found[2]}-{found[3]}T{found[4]}"
    try:
        datetime.fromisoformat(date)
    except ValueError:
        return None
    return date


def _text(value: object) -> str:
    """A tag as one line of text; "" for other values."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(value.replace("\0", " ").split()) if isinstance(value, str) else ""
