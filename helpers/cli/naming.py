"""Images of an engine that a command line names: by id, key, path, folder or pattern."""

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import locations
from helpers.cli.common import USAGE, CommandError, log, printable
from helpers.text import clean_text

if TYPE_CHECKING:
    from helpers.search.engine import Engine
    from helpers.search.gallery import GalleryTable


class ImageNames:
    """Finds images of one engine by names."""

    def __init__(self, engine: "Engine"):
        self._table = engine.table
        self._indexed = engine.index.ids.tolist()
        self._held, self._paths = set(self._indexed), self._table.paths

    def ids(self, name: str) -> set[int]:
        """The ids of an id, key, path or folder; none if it is not in the engine.

        Raises CommandError: several images have this name.
        """
        table, path = self._table, Path(name).resolve()
        places = (locations.absolute(Path(name)), table.root / name if table.root else name)
        if found := self._held.intersection(id for place in places for id in table.ids_at(place)):
            return found
        if name.isdecimal() and int(name) in self._held:
            return {int(name)}
        # A folder by its path, or by the beginning of the keys. "." and ".." are paths only.
        parts = Path(name).parts
        own = [table.root / name] if table.root and parts and ".." not in parts else []
        for folder in (path, *own):
            if below := {id for id in self._indexed if Path(self._paths[id]).is_relative_to(folder)}:
                return below
        # As JSON and CSV print them.
        own_names = ((id, self._paths[id], _key(table, self._paths[id])) for id in self._indexed)
        printed = [id for id, path, key in own_names if name in (clean_text(path), clean_text(key))]
        if len(printed) > 1:
            raise CommandError(f"{name} is the name of several images; name one by its id: {printed}", USAGE)
        return set(printed)

    def matching(self, pattern: str) -> set[int]:
        """The ids of the images whose key or path matches a pattern with the wildcards * and ?.

        The path is compared with the pattern, and with the pattern below the current folder.
        """
        below = os.path.normpath(Path.cwd() / pattern)
        return {
            id
            for id in self._indexed
            if fnmatchcase(_key(self._table, self._paths[id]), pattern)
            or any(fnmatchcase(self._paths[id], one) for one in (pattern, below))
        }


def ids_named(engine: "Engine", names: list[str], folder: Path) -> list[int]:
    """The sorted ids of images that are named to be removed. CommandError: a name has no image, or is ambiguous."""
    found = _found(engine, names)
    for name, ids in found.items():
        if not ids:
            raise CommandError(
                f"{printable(name)} is not an id, key, path or folder of images in {printable(folder)}; nothing was "
                "removed. `lookalike list` prints ids and paths"
            )
    return sorted(set().union(*found.values()))


def ids_excluded(engine: "Engine", names: list[str]) -> list[int]:
    """The ids of images given by id, key, path, folder or pattern. A message says which name has none."""
    found = _found(engine, names, patterns=True)
    for name, ids in found.items():
        if not ids:
            log(f"note: --exclude {printable(name)}: no image of the engine has this name")
    return sorted(set().union(*found.values()))


def ids_marked(engine: "Engine", names: list[str], option: str) -> list[int]:
    """The ids of images given by id, key or path, each once. CommandError: a name is not that of one image."""
    found = _found(engine, names)
    for name, ids in found.items():
        if len(ids) != 1:
            what = "a folder or the path of several images" if ids else "not an id, key or path of the engine"
            raise CommandError(
                f"{option} {printable(name)}: this is {what}. `lookalike list` prints ids and paths", USAGE
            )
    return list(dict.fromkeys(id for ids in found.values() for id in ids))


def _found(engine: "Engine", names: list[str], patterns: bool = False) -> dict[str, set[int]]:
    """The ids of each name. ``patterns`` : a name that no image has may be a pattern."""
    if not names:
        return {}
    images = ImageNames(engine)
    return {name: images.ids(name) or (images.matching(name) if patterns else set()) for name in names}


def _key(table: "GalleryTable", path: str) -> str:
    return path.removeprefix(f"{table.root}{os.sep}") if table.root else path
