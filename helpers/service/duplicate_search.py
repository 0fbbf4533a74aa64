"""Near-duplicates of the gallery, found in the background."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

from helpers.images.copies import details_of, preference
from helpers.images.duplicates import Audit, audit
from helpers.images.file_details import FileDetails
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.service.errors import ApiError
from helpers.service.gallery_search import images_of

log = logging.getLogger("lookalike.service")

#: Images of a gallery whose near-duplicates the service finds: an audit of so many takes minutes.
MAX_IMAGES = 20_000

#: How long a request waits for the result, in seconds.
_WAIT = 0.2

#: A path, and ``how`` and ``correlation`` as in `Copy`.
_Member = tuple[str, str | None, float | None]

#: The result of a search: the paths of its images, and the groups.
_Found = tuple[frozenset[str], list[list[_Member]]]


@dataclass(frozen=True)
class Copy:
    """A copy of an image.

    Attributes
    ----------
    how : the search that found it, as in `helpers.images.duplicates.Pair`; None for the one that represents the group.
    correlation : of the pixels with the image of the group that it was compared with; None as above.
    details : of its file; None if that cannot be read.
    keep : whether it is the best copy.
    """

    id: int
    how: str | None
    correlation: float | None
    details: FileDetails | None
    keep: bool


class DuplicateSearch:
    """The near-duplicates of a live engine, by `helpers.images.duplicates.audit`.

    One thread at a time computes. The result is kept until images are added; removed images drop out of it.
    """

    def __init__(self, live: LiveEngine):
        self._live, self._lock = live, threading.Lock()
        #: The search that runs, or the last one.
        self._audit: Future[_Found] = Future()
        self._audit.set_result((frozenset(), []))

    def groups(self) -> list[list[Copy]] | None:
        """The copies of each original, the largest groups first; None while they are not known.

        Raises
        ------
        ApiError : 422, the gallery is too large.
        """
        self._live.refresh()
        engine = self._live.engine
        if len(engine.index.ids) > MAX_IMAGES:
            raise ApiError(
                422,
                f"The page finds near-duplicates of up to {MAX_IMAGES:,} images. Use the command `lookalike audit`.",
                code="not_applicable",
            )
        with self._lock:
            if self._audit.done() and not self._covers(engine):
                self._audit = Future()
                # A daemon, so that the service can stop.
                threading.Thread(target=_search, args=(engine, self._audit), name="audit", daemon=True).start()
            running = self._audit
        wait([running], _WAIT)
        return self._current(running.result()[1]) if running.done() else None

    def _covers(self, engine: Engine) -> bool:
        """Whether the last search succeeded, and no images were added since."""
        return self._audit.exception() is None and self._audit.result()[0].issuperset(_paths(engine).values())

    def _current(self, found: Sequence[Sequence[_Member]]) -> list[list[Copy]]:
        """The groups without images that were removed; ids may have changed meanwhile."""
        ids = {path: id for id, path in _paths(self._live.engine).items()}
        groups = []
        for members in found:
            there = [member for member in members if member[0] in ids]
            if len(there) < 2:
                continue
            details = {path: details_of(Path(path)) for path, _, _ in there}
            best = min(details, key=lambda path: (*preference(Path(path), details[path]), ids[path]))
            groups.append(
                [Copy(ids[path], how, correlation, details[path], path == best) for path, how, correlation in there]
            )
        return sorted(groups, key=len, reverse=True)


def _paths(engine: Engine) -> dict[int, str]:
    return {id: str(engine.table.path(id)) for id in engine.index.ids.tolist()}


def _search(engine: Engine, result: Future[_Found]) -> None:
    try:
        ids = engine.index.ids
        images = images_of(engine.table, ids)
        found = audit(images, engine.index.vectors(ids))
        result.set_result((frozenset(map(str, images.paths)), _groups(found)))
    except Exception as error:
        log.exception("the search for near-duplicates failed")
        result.set_exception(error)


def _groups(found: Audit) -> list[list[_Member]]:
    groups: dict[int, list[_Member]] = {}
    paths = found.images.paths
    for pair in found.pairs:
        members = groups.setdefault(pair.first, [(str(paths[pair.first]), None, None)])
        members.append((str(paths[pair.second]), pair.how, pair.correlation))
    return list(groups.values())
