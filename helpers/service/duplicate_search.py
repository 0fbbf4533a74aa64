"""Near-duplicates of the gallery, found in the background."""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from helpers.images.copies import details_of, preference
from helpers.images.duplicates import Audit, audit
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.service.errors import ApiError
from helpers.service.gallery_search import images_of
from helpers.service.image_schemas import CopiesOut, CopyOut, DuplicatesOut
from helpers.service.schemas import ImageOut

log = logging.getLogger("lookalike.service")

#: Images of a gallery whose near-duplicates the service finds: an audit of so many takes minutes.
MAX_IMAGES = 20_000

#: How long a request waits for the result, in seconds.
_WAIT = 0.2

#: A path, and ``how`` and ``correlation`` as in `CopyOut`.
_Member = tuple[str, str | None, float | None]

#: The result of a search: the paths of its images, and the groups.
_Found = tuple[frozenset[str], list[list[_Member]]]


class DuplicateSearch:
    """The near-duplicates of a live engine, by `helpers.images.duplicates.audit`.

    One thread at a time computes. The result is kept until images are added; removed images drop out of it.

    image : returns an image of the engine by its id.
    """

    def __init__(self, live: LiveEngine, image: Callable[[int], ImageOut]):
        self._live, self._image, self._lock = live, image, threading.Lock()
        #: The search that runs, or the last one.
        self._audit: Future[_Found] = Future()
        self._audit.set_result((frozenset(), []))

    def groups(self) -> DuplicatesOut:
        """The copies of each original, or that they are not known yet.

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
        if not running.done():
            return DuplicatesOut(state="running", groups=[])
        return DuplicatesOut(state="done", groups=self._current(running.result()[1]))

    def _covers(self, engine: Engine) -> bool:
        """Whether the last search succeeded, and no images were added since."""
        return self._audit.exception() is None and self._audit.result()[0].issuperset(_paths(engine).values())

    def _current(self, found: Sequence[Sequence[_Member]]) -> list[CopiesOut]:
        """The groups without images that were removed; ids may have changed meanwhile."""
        ids = {path: id for id, path in _paths(self._live.engine).items()}
        groups = []
        for members in found:
            there = [member for member in members if member[0] in ids]
            if len(there) < 2:
                continue
            details = {path: details_of(Path(path)) for path, _, _ in there}
            best = min(details, key=lambda path: (*preference(Path(path), details[path]), ids[path]))
            with contextlib.suppress(ApiError):  # removed meanwhile
                copies = [
                    CopyOut.of(
                        self._image(ids[path]), details[path], how=how, correlation=correlation, keep=path == best
                    )
                    for path, how, correlation in there
                ]
                groups.append(CopiesOut(images=copies))
        return sorted(groups, key=lambda group: len(group.images), reverse=True)


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
