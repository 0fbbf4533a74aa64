"""Near-duplicates of the gallery, found in the background."""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

import numpy as np

from helpers.images.copies import details_of, preference
from helpers.images.duplicates import Audit, audit
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.service.errors import ApiError
from helpers.service.image_schemas import CopiesOut, CopyOut, DuplicatesOut
from helpers.service.schemas import ImageOut

log = logging.getLogger("lookalike.service")

#: The service finds near-duplicates in galleries of up to this many images: an audit of this many takes minutes.
MAX_IMAGES = 20_000

#: How long a request waits for the result, in seconds.
_WAIT = 0.2

#: The path of an image and the content of its file, by which it is known after its id has changed. Another image may
#: have replaced it at the same path.
_Key = tuple[str, bytes | None]

#: An image, and ``how`` and ``correlation`` as in `CopyOut`.
_Member = tuple[_Key, str | None, float | None]

#: The result of a search: its images, and the groups.
_Found = tuple[frozenset[_Key], list[list[_Member]]]


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
        """The copies of each original, or none while the search runs.

        Raises ApiError: 422, the gallery is too large.
        """
        self._live.refresh()
        engine = self._live.engine
        if len(engine.index.ids) > MAX_IMAGES:
            raise ApiError(
                422,
                f"The service finds near-duplicates in galleries of up to {MAX_IMAGES:,} images. "
                "For this one, use the command `lookalike audit`.",
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
        return self._audit.exception() is None and self._audit.result()[0].issuperset(_keys(engine))

    def _current(self, found: Sequence[Sequence[_Member]]) -> list[CopiesOut]:
        """The groups without images that were removed; ids may have changed meanwhile."""
        ids = _keys(self._live.engine)
        groups = []
        for members in found:
            there = [member for member in members if member[0] in ids]
            if len(there) < 2:
                continue
            details = {key: details_of(Path(key[0])) for key, _, _ in there}
            best = min(details, key=lambda key: (*preference(Path(key[0]), details[key]), ids[key]))
            with contextlib.suppress(ApiError):  # removed meanwhile
                copies = [
                    CopyOut.of(self._image(ids[key]), details[key], how=how, correlation=correlation, keep=key == best)
                    for key, how, correlation in there
                ]
                groups.append(CopiesOut(images=copies))
        return sorted(groups, key=lambda group: len(group.images), reverse=True)


def _keys(engine: Engine) -> dict[_Key, int]:
    """The ids of the images."""
    table = engine.table
    return {(table.path_text(id), table.content(id)): id for id in engine.index.ids.tolist()}


def _search(engine: Engine, result: Future[_Found]) -> None:
    try:
        keys = _keys(engine)
        ids = np.array(list(keys.values()), np.int64)
        found = audit(engine.table.subset(ids), engine.index.vectors(ids))
        result.set_result((frozenset(keys), _groups(found, list(keys))))
    except Exception as error:
        log.exception("the search for near-duplicates failed")
        result.set_exception(error)


def _groups(found: Audit, keys: Sequence[_Key]) -> list[list[_Member]]:
    """keys : of the images of the audit."""
    groups: dict[int, list[_Member]] = {}
    for pair in found.pairs:
        members = groups.setdefault(pair.first, [(keys[pair.first], None, None)])
        members.append((keys[pair.second], pair.how, pair.correlation))
    return list(groups.values())
