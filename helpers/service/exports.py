"""Images of the gallery as one ZIP file, which is sent while it is made."""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from helpers.text import printable

#: Images of one file.
MAX_IMAGES = 500

_CHUNK = 2**18
#: What Windows does not accept in names, and control characters.
_UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')


class _Sink(io.RawIOBase):
    """A file that cannot be read or seeked; `taken` returns what was written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """The parts of a ZIP file of images, which are stored as they are: compression would gain nothing.

    files : pairs of a name in the ZIP file and a path.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, path in files:
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while content := source.read(_CHUNK):
                    target.write(content)
                    yield sink.taken()
    yield sink.taken()


def safe_names(names: Iterable[str]) -> list[str]:
    """Names that are unique and can be unpacked everywhere, and never outside of a folder.

    names : relative paths, such as those of a gallery.
    """
    used: set[str] = set()
    safe = []
    for name in names:
        parts = [_UNSAFE.sub("_", printable(part)).strip(" .") for part in name.split("/")]
        path = "/".join(part for part in parts if part) or "image"
        stem, dot, suffix = path.rpartition(".")
        number, unique = 1, path
        while unique.casefold() in used:
            number += 1
            unique = f"{stem} ({number}){dot}{suffix}" if stem and "/" not in suffix else f"{path} ({number})"
        used.add(unique.casefold())
        safe.append(unique)
    return safe
