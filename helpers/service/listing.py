"""The order in which the images of the gallery are listed."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable

#: The orders; a hyphen in front of a name reverses the order. Images with the same value are in the order of their ids.
Sort = Literal["id", "-id", "name", "-name", "date", "-date", "size", "-size", "class", "-class"]


class Listing:
    """The ids of an engine in each order, computed once per engine.

    Sizes and dates of files are read once for each image, so the first list in the order of one of them takes time for
    each file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By path and content: an id may belong to another image when the engine is saved again.
        self._files: dict[tuple[str, bytes | None], tuple[int, int]] = {}
        self._sorted: tuple[Engine | None, dict[str, np.ndarray]] = (None, {})

    def ids(self, engine: Engine, sort: Sort) -> np.ndarray:
        """int64 (n,): all ids of the index."""
        if sort == "id":
            return engine.index.ids
        with self._lock:
            known, orders = self._sorted
            if known is not engine:
                self._sorted = engine, (orders := {})
            if sort not in orders:
                orders[sort] = self._order(engine, sort)
            return orders[sort]

    def _order(self, engine: Engine, sort: Sort) -> np.ndarray:
        name, reverse = sort.removeprefix("-"), sort.startswith("-")
        table, ids = engine.table, engine.index.ids.tolist()
        keys: dict[str, Callable[[int], int | str | tuple[bool, str]]] = {
            "id": lambda id: id,
            "name": lambda id: table.display_name(id).casefold(),
            # Images without a class follow all classes, in both directions.
            "class": lambda id: ((table.class_name(id) is None) != reverse, (table.class_name(id) or "").casefold()),
            "date": lambda id: self._file(table, id)[0],
            "size": lambda id: self._file(table, id)[1],
        }
        # A reverse sort keeps the order of equal values, too.
        return np.array(sorted(ids, key=keys[name], reverse=reverse), np.int64)

    def _file(self, table: GalleryTable, id: int) -> tuple[int, int]:
        """When a file was modified, in nanoseconds, and its size in bytes; 0 for a missing file."""
        path = table.path_text(id)
        key = path, table.content(id)
        if key not in self._files:
            try:
                status = Path(path).stat()
            except OSError:
                return 0, 0
            self._files[key] = status.st_mtime_ns, status.st_size
        return self._files[key]
