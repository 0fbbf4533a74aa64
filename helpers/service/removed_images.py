"""Removed images that can be restored: what the engine knew about them, and the files of uploads.

They are files in the folder ``removed`` of the engine, so that every process of a service finds them, even after a
restart. The write-ahead log cannot restore an image: a compaction drops what was removed.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.files import write_atomically
from helpers.service.schemas import from_text, to_text

#: The folder in that of an engine.
FOLDER = "removed"
#: How long removed images are kept, in seconds, and how many.
SECONDS, MOST = 3600, 1000


@dataclass(frozen=True, eq=False)
class RemovedImage:
    """What an engine knew about an image.

    Attributes
    ----------
    path : of its file.
    vector : float32 (dim,).
    content, name : the identity of the file's content, and a name that differs from that of the file; or None.
    """

    id: int
    path: Path
    class_name: str | None
    vector: np.ndarray
    content: bytes | None = None
    name: str | None = None


class RemovedImages:
    """The removed images of an engine. folder : of the engine."""

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER

    def put(self, image: RemovedImage) -> None:
        """Keep an image, before it is removed: a killed process loses nothing."""
        self._folder.mkdir(exist_ok=True)
        values = {
            "path": str(image.path),
            "class_name": image.class_name,
            "vector": to_text(image.vector),
            "content": None if image.content is None else image.content.hex(),
            "name": image.name,
        }
        write_atomically(self._record(image.id), json.dumps(values).encode("ascii"))

    def get(self, id: int) -> RemovedImage | None:
        """An image that was kept; None if it was not removed, or was removed too long ago."""
        try:
            values = json.loads(self._record(id).read_bytes())
        except FileNotFoundError:
            return None
        content = None if values["content"] is None else bytes.fromhex(values["content"])
        vector, path = from_text(values["vector"]), Path(values["path"])
        return RemovedImage(id, path, values["class_name"], vector, content, values["name"])

    def take_file(self, image: RemovedImage) -> None:
        """Move the file of an upload into this folder."""
        with contextlib.suppress(FileNotFoundError):
            image.path.replace(self._file(image.id))

    def return_file(self, image: RemovedImage) -> None:
        """Move the file of an upload back, unless it is there."""
        if not image.path.exists():
            with contextlib.suppress(FileNotFoundError):
                self._file(image.id).replace(image.path)

    def has_file(self, image: RemovedImage) -> bool:
        """Whether the image can be restored: its file is in its place or here."""
        return image.path.is_file() or self._file(image.id).is_file()

    def forget(self, id: int) -> None:
        """Delete what is kept of an image."""
        for path in (self._file(id), self._record(id)):
            path.unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> None:
        """Forget images that were removed too long ago, and the oldest of too many.

        now : seconds since the epoch.
        """
        latest = (time.time() if now is None else now) - SECONDS
        for number, (modified, id) in enumerate(sorted(self._records(), reverse=True)):
            if modified < latest or number >= MOST:
                self.forget(id)

    def _records(self) -> Iterator[tuple[float, int]]:
        """When each image was removed, and its id."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                yield path.stat().st_mtime, int(path.stem)

    def _record(self, id: int) -> Path:
        return self._folder / f"{id}.json"

    def _file(self, id: int) -> Path:
        return self._folder / f"{id}.image"
