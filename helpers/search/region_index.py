"""The regions of a saved engine's images: boxes in ``engine.sqlite``, and vectors in an engine of their own.

That engine is in the folder ``regions`` of the first one, and has an index of the same backend. Each of its rows is a
region, with the path of the image and the box, as in ``photo.jpg#xywh=10,20,30,40`` (W3C Media Fragments), and with the
detected class. Regions belong to an image by the content of its file: copies share them, and they stay valid when
images get other ids.
"""

import contextlib
import re
import shlex
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from filelock import FileLock

from helpers.features.region_vectors import find_regions, region_fingerprint, region_vectors
from helpers.features.regions import Regions, RegionSource, region_source
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.search.backends.remote import RemoteIndex
from helpers.search.engine import Engine, UnopenedExtractor
from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, open_index
from helpers.search.persist import region_boxes, snapshot
from helpers.search.persist.content_table import StoredSource, images_by_content
from helpers.search.persist.delta import DeltaIndex
from helpers.search.persist.engine_file import EngineFile, EngineFolderError
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.region_boxes import row_of
from helpers.search.region_search import GalleryRegions, check_cosines
from helpers.text import printable

#: The folder of the regions' vectors, in the engine's folder.
FOLDER = "regions"
#: The lock of the process that finds regions, in the engine's folder.
LOCK = ".regions.lock"

#: The most images that are looked up one by one.
_FEW = 1000
#: Images whose regions are found and written, or whose vectors are extracted, at a time.
_STEP = 256
_NOTHING = Regions(np.empty((0, 4), np.float32), (), np.empty(0, np.float32))
_BOX = re.compile(r"#xywh=(\d+),(\d+),(\d+),(\d+)$")


class NoRegions(ValueError):
    """An engine has no regions, or they are of another source; the message has the remedy."""


@dataclass(frozen=True)
class RegionUpdate:
    """What an update of an engine's regions did.

    found : images whose regions were searched for. skipped : images that cannot be read, or whose content is not known.
    added, removed : regions.
    """

    found: int
    skipped: int
    added: int
    removed: int


class RegionIndex:
    """The stored regions of a saved engine.

    Methods may be called from several threads. Other processes may add images and regions meanwhile.

    folder : of the engine.

    Raises NoRegions: no regions are stored.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._stored = stored_source(folder)
        self._file = EngineFile(folder)
        self._lock = threading.Lock()
        self._live: LiveEngine | None = None
        self._version, self._last = -1, 0
        self._boxes: dict[bytes, Regions] = {}
        self._entries = _Entries()
        #: What the latest results were made of, and the results.
        self._latest: tuple[tuple[object, ...], GalleryRegions] | None = None
        #: Images without regions, the number of rows that were checked, and for which state.
        self._pending: list[int] = []
        self._checked = 0
        self._checked_for: tuple[object, ...] = ()

    @property
    def source(self) -> str:
        """What found the regions: ``"detector"``, ``"grid"`` or ``"proposals"``."""
        return self._stored.name

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        with self._lock:
            self._file.close()
            if self._live is not None:
                self._live.close()
            self._live = None

    def of(self, engine: Engine) -> GalleryRegions:
        """The regions of an engine's images.

        engine : the present one of the folder, see `LiveEngine.engine`.
        """
        with self._lock:
            regions = self._refresh(engine)
            state = engine.table, engine.index, None if regions is None else regions.index
            if self._latest is not None and self._latest[0] == state:
                return self._latest[1]
            if regions is None:
                found = GalleryRegions.of_vectors(np.empty(0, np.int64), [], [])
            else:
                snapshots = engine.saved.snapshot_id, regions.saved.snapshot_id
                if self._entries.snapshots != snapshots:
                    self._entries = _Entries(snapshots)
                self._entries.extend(engine.table, regions.table, self._boxes)
                found = self._entries.regions(engine.index, regions.index)
            self._latest = state, found
            return found

    def missing(self, engine: Engine) -> np.ndarray:
        """int64 (m,): the ids of images whose regions, or their vectors, are not stored yet."""
        with self._lock:
            regions, table = self._refresh(engine), engine.table
            # The number of removed regions changes when an image may have lost its regions.
            removed = None if regions is None else len(regions.table) - len(regions.index)
            own = None if regions is None else regions.saved.snapshot_id
            state = engine.saved.snapshot_id, self._stored.fingerprint, own, removed
            if state != self._checked_for:
                self._pending, self._checked, self._checked_for = [], 0, state
            # Another thread may have passed a later engine already, whose images are not in this one.
            later = [id for id in self._pending if id >= len(table)]
            ids = [id for id in self._pending if id < len(table)]
            ids += range(self._checked, len(table))
            found = np.array(ids, np.int64)
            found = found[engine.index.contains(found)]
            contents = [table.content(id) for id in found.tolist()]
            done = self._done(regions, {content for content in contents if content is not None})
            found = found[np.array([one is not None and one not in done for one in contents], bool)]
            self._pending, self._checked = [*found.tolist(), *later], max(self._checked, len(table))
            return found

    def _done(self, regions: Engine | None, contents: set[bytes]) -> set[bytes]:
        """Those of some contents whose regions are known: there are none, or an engine holds them."""
        boxes = {content: one for content in contents if (one := self._boxes.get(content)) is not None}
        indexed = set() if regions is None else _indexed(regions, boxes)
        return {content for content, one in boxes.items() if not len(one) or content in indexed}

    def extract_missing(self, engine: Engine) -> int:
        """Find and store the regions of images that have none yet; returns the number of these images.

        Raises NoRegions: the stored regions are of another version of their source. Raises `WeightsUnavailable`.
        """
        missing = self.missing(engine).tolist()
        if not missing:
            return 0
        return update_regions(self.folder, engine, open_source(self.folder), only=missing, live=self._live).found

    def _refresh(self, engine: Engine) -> Engine | None:
        """Read what was stored since the last call; the engine of the regions.

        None if there is none of this source and of the extractor of ``engine``.
        """
        version = self._file.version()
        if version != self._version:
            with self._file.reading() as connection:
                stored = region_boxes.TABLE.source_of(connection)
                if stored is None or stored.fingerprint != self._stored.fingerprint:
                    self._boxes, self._last = {}, 0
                new, self._last = region_boxes.read(connection, self._last)
            self._stored, self._version = _required(stored, self.folder), version
            self._boxes.update(new)
        own = self.folder / FOLDER
        if self._live is not None:
            try:
                self._live.refresh()
            except EngineFolderError:
                # Another process made the engine again, with another extractor.
                self._live.close()
                self._live = None
        if self._live is None and snapshot.is_engine(own):
            self._live = LiveEngine.open(own, UnopenedExtractor.of(own))
        if self._live is None:
            return None
        regions = self._live.engine
        known = regions.table.name, regions.extractor.fingerprint
        return regions if known == (self._stored.fingerprint, region_fingerprint(engine.extractor)) else None


class _Entries:
    """The pairs of images and regions with the same content. Rows are only added, because ids are never given again."""

    def __init__(self, snapshots: tuple[str, str] = ("", "")):
        self.snapshots = snapshots
        #: Number of images that were paired.
        self._images = 0
        self._by_content: dict[bytes, list[int]] = defaultdict(list)
        #: Image, region, image, region, …
        self._pairs = array("q")
        #: Of each region, by its id: the four numbers of its box, class and score.
        self._boxes = array("i")
        self._class_names: list[str | None] = []
        self._scores = array("f")

    def extend(self, images: GalleryTable, regions: GalleryTable, stored: dict[bytes, Regions]) -> None:
        """Pair the rows that were added to the tables since the last call.

        stored : the regions of each content, with their scores.
        """
        first = len(self._scores)
        content: bytes | None = None
        #: Of the regions of this content, by their box.
        scores: dict[tuple[int, ...], float] = {}
        for region, path in enumerate(regions.paths[first:], first):
            before, content = content, regions.content(region)
            if content != before:
                one = stored.get(content or b"", _NOTHING)
                scores = dict(zip(map(tuple, one.boxes.astype(int).tolist()), one.scores.tolist(), strict=True))
            box = _box_of(path)
            self._boxes.extend(box)
            self._class_names.append(regions.class_name(region))
            # 1 if its row was deleted meanwhile.
            self._scores.append(scores.get(tuple(box), 1.0))
            if content is not None:
                self._by_content[content].append(region)
                for image in images.ids_with(content):
                    if image < self._images:
                        self._pairs.extend((image, region))
        for image in range(self._images, len(images)):
            content = images.content(image)
            for region in () if content is None else self._by_content.get(content, ()):
                self._pairs.extend((image, region))
        self._images = len(images)

    def regions(self, images: Index | DeltaIndex, regions: Index | DeltaIndex) -> GalleryRegions:
        """The regions of the pairs of which both are in an index."""
        pairs = np.array(self._pairs, np.int64).reshape(-1, 2)
        pairs = pairs[images.contains(pairs[:, 0]) & regions.contains(pairs[:, 1])]
        rows = pairs[:, 1]
        boxes = np.array(self._boxes, np.float32).reshape(-1, 4)[rows]
        names, scores = np.array(self._class_names, object)[rows], np.array(self._scores, np.float32)[rows]
        return GalleryRegions(regions, pairs[:, 0], rows, boxes, names, scores)


def update_regions(
    folder: str | Path, engine: Engine, source: RegionSource, progress: Callable[[int], object] | None = None, *,
    files: tuple[str, str] | None = None, only: Sequence[int] | None = None, live: LiveEngine | None = None,
) -> RegionUpdate:  # fmt: skip
    """Find and store the regions of an engine's images, and remove those of images that it no longer holds.

    Regions that are stored already, of the same source, are kept; an interrupted call continues where it stopped.
    Regions of another source are replaced.

    Parameters
    ----------
    engine : of the folder, with its extractor.
    progress : called with the number of images after each step.
    files : of the source's detector, if it is the user's own: the network and its labels.
    only : the ids of some images. Then nothing is removed, and the time does not depend on the number of images.
    live : the engine of the regions, if it is open.
    """
    check_cosines(engine)
    folder, table = Path(folder), engine.table
    ids = engine.index.ids.tolist() if only is None else list(only)
    images, unknown = images_by_content(table, ids), sum(table.content(id) is None for id in ids)
    stored_as = StoredSource(source.name, source.fingerprint, *(files or (None, None)))

    def compute(part: list[int]) -> list[tuple]:
        found = find_regions(source, engine.extractor, [table.path(id) for id in part])
        return [row_of(table.content(id), one) for id, one in zip(part, found, strict=True) if one is not None]

    # Two processes would add the regions of an image twice.
    with FileLock(folder / LOCK), EngineFile(folder) as file:
        found, skipped = region_boxes.TABLE.compute_missing(file, stored_as, images, compute, _STEP, progress)
        with file.reading() as connection:
            stored = region_boxes.read(connection)[0] if only is None else region_boxes.read_of(connection, images)
        known = {id: stored[content] for content, id in images.items() if stored.get(content)}
        with contextlib.ExitStack() as stack:
            if not _fits(folder / FOLDER, engine, source):
                live = None
            elif live is None:
                live = stack.enter_context(LiveEngine.open(folder / FOLDER, UnopenedExtractor.of(folder / FOLDER)))
            removed = 0 if live is None or only is not None else _remove_unused(folder, live)
            added, blank = _add_vectors(folder, engine, source, known, live)
        if blank:
            with file.writing() as connection:
                region_boxes.TABLE.write(connection, [row_of(one, _NOTHING) for one in blank], replace=True)
    return RegionUpdate(found, skipped + unknown, added, removed)


def _add_vectors(
    folder: Path, engine: Engine, source: RegionSource, regions: dict[int, Regions], live: LiveEngine | None
) -> tuple[int, list[bytes]]:
    """Add the regions that the engine of the regions lacks: their number, and the contents without any.

    regions : of the images that have some, by id.
    live : the engine of the regions; None to make it.
    """
    table = engine.table
    if live is None:
        rows = _rows(engine, regions)
        if rows.paths:
            _make(folder / FOLDER, engine, source, rows)
        return len(rows.paths), rows.blank
    live.refresh()
    contents = {id: content for id in regions if (content := table.content(id)) is not None}
    known = _indexed(live.engine, contents.values())
    new = [id for id in regions if contents.get(id) not in known]
    added, blank = 0, []
    for start in range(0, len(new), _STEP):
        rows = _rows(engine, {id: regions[id] for id in new[start : start + _STEP]})
        if rows.paths:
            live.add_extracted(rows.paths, rows.vectors, rows.class_names, rows.contents, compare=False)
        added += len(rows.paths)
        blank += rows.blank
    live.wait_for_compaction()
    return added, blank


def remove_unused(folder: str | Path) -> int:
    """Remove the regions of images that a saved engine no longer holds, and compact the rest; returns their number."""
    folder = Path(folder)
    own = folder / FOLDER
    with FileLock(folder / LOCK):
        if not snapshot.is_engine(own):
            return 0
        with LiveEngine.open(own, UnopenedExtractor.of(own)) as live:
            removed = _remove_unused(folder, live)
            live.compact()
    return removed


def _remove_unused(folder: Path, live: LiveEngine) -> int:
    """Remove the regions of images that the folder's engine does not hold; returns their number.

    live : the engine of the regions.
    """
    # As it is now, because another process may have added images and their regions.
    engine = Engine.load(folder, UnopenedExtractor.of(folder), mmap=True)
    held = _contents_of(engine)
    ids = live.engine.index.ids
    gone = ids[np.array([live.engine.table.content(id) not in held for id in ids.tolist()], bool)]
    if len(gone):
        live.remove(gone)
    return len(gone)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Regions with vectors, as rows of an engine.

    blank : the contents of images that were read, but whose regions are similar to nothing.
    """

    paths: list[str]
    vectors: np.ndarray
    class_names: list[str | None]
    contents: list[bytes | None]
    blank: list[bytes]


def _rows(engine: Engine, regions: dict[int, Regions]) -> _Rows:
    """The regions of some images, by id.

    Regions of files that cannot be read are left out, and those whose vector is zero, which are similar to nothing.
    """
    ids, table = list(regions), engine.table
    found = region_vectors(engine.extractor, [table.path(id) for id in ids], [regions[id].boxes for id in ids])
    vectors = np.concatenate([np.empty((0, engine.extractor.dim), np.float32), *found])
    # The extremes of a vector, because to look at each of its numbers takes several times as long.
    low, high = vectors.min(axis=1), vectors.max(axis=1)
    is_zero = (low == 0) & (high == 0)
    usable = np.isfinite(low) & np.isfinite(high) & ~is_zero
    ends = np.cumsum([len(each) for each in found])
    blank = [id for id, each, end in zip(ids, found, ends, strict=True) if is_zero[end - len(each) : end].all()]
    names = [name for id in ids for name in regions[id].class_names]
    contents = [table.content(id) for id in ids for _ in range(len(regions[id]))]
    paths: list[str] = []
    for id in ids:
        path = table.path(id)
        paths += [f"{path}#xywh={x},{y},{w},{h}" for x, y, w, h in regions[id].boxes.astype(int).tolist()]
    return _Rows(
        list(compress(paths, usable)),
        vectors if usable.all() else vectors[usable],
        list(compress(names, usable)),
        list(compress(contents, usable)),
        [content for id in blank if (content := table.content(id)) is not None],
    )


def _fits(own: Path, engine: Engine, source: RegionSource) -> bool:
    """Whether the folder holds an engine of regions of this extractor, backend and source."""
    if not snapshot.is_engine(own):
        return False
    manifest = snapshot.manifest_of(own)
    stored = manifest.fingerprint, manifest.index_spec, manifest.name
    return stored == (region_fingerprint(engine.extractor), _spec(engine), source.fingerprint)


def forget_regions(folder: str | Path) -> None:
    """Remove the stored regions of a saved engine. Their vectors stay in its folder until regions are found again."""
    folder = Path(folder)
    with FileLock(folder / LOCK), EngineFile(folder) as file, file.writing() as connection:
        region_boxes.TABLE.clear(connection)


def _make(own: Path, engine: Engine, source: RegionSource, rows: _Rows) -> None:
    """Save an engine of regions in place of an earlier one."""
    names = sorted({name for name in rows.class_names if name is not None})
    labels = np.array([NO_CLASS if name is None else names.index(name) for name in rows.class_names])
    images = ImageSet(source.fingerprint, tuple(Path(path) for path in rows.paths), labels, tuple(names))
    extractor = UnopenedExtractor(engine.extractor.name, region_fingerprint(engine.extractor))
    made = Engine(extractor, _empty_index(own, engine)).fit_extracted(images, rows.vectors, rows.contents)
    made.save(own, replace=True)


def _empty_index(own: Path, engine: Engine) -> Index:
    """A new index for the regions. Raises ValueError: a server has vectors of others under its name."""
    index = open_index(_spec(engine))
    # The folder is made first, so that vectors of an interrupted call are recognized.
    if isinstance(index, RemoteIndex) and len(index):
        if not own.is_dir():
            raise ValueError(
                f"{index.spec} holds {len(index):,} vectors of something else, so the regions cannot be stored there. "
                "Remove them, or index the images under another name."
            )
        index.clear()
    own.mkdir(exist_ok=True)
    return index


def _spec(engine: Engine) -> str:
    """The index of the regions, as a name for `open_index`: that of the engine; on a server, another collection."""
    index = engine.index.base if isinstance(engine.index, DeltaIndex) else engine.index
    return index.sibling("_regions") if isinstance(index, RemoteIndex) else index.spec


def stored_source(folder: str | Path) -> StoredSource:
    """The source of a saved engine's regions. Raises NoRegions: none are stored."""
    return _required(region_boxes.TABLE.source_in(folder), folder)


def open_source(folder: str | Path) -> RegionSource:
    """The source of a saved engine's regions.

    Raises NoRegions: the regions are of another version of it. Raises `WeightsUnavailable`, `DetectorFileError`.
    """
    from helpers.networks import detectors

    stored = stored_source(folder)
    detector = None
    if stored.detector is not None and stored.labels is not None:
        detector = detectors.from_file(stored.detector, stored.labels)
    source = region_source(stored.name, detector)
    if source.fingerprint != stored.fingerprint:
        raise NoRegions(
            f"The regions of {printable(folder)} are of another version of their source ({stored.name}). Find them "
            f"again: lookalike index FOLDER --regions {stored.name} -o {shlex.quote(str(folder))}"
        )
    return source


def _required(stored: StoredSource | None, folder: str | Path) -> StoredSource:
    if stored is None:
        raise NoRegions(
            f"{printable(folder)} has no regions. Add them: lookalike index FOLDER --regions detector "
            f"-o {shlex.quote(str(folder))}"
        )
    return stored


def _indexed(regions: Engine, contents: Collection[bytes]) -> set[bytes]:
    """Those of some contents of which an engine of regions holds some."""
    if len(contents) > _FEW:
        return _contents_of(regions).intersection(contents)
    ids = {content: np.array(regions.table.ids_with(content), np.int64) for content in contents}
    return {content for content, rows in ids.items() if regions.index.contains(rows).any()}


def _contents_of(regions: Engine) -> set[bytes]:
    table = regions.table
    return {content for id in regions.index.ids.tolist() if (content := table.content(id)) is not None}


def _box_of(path: str) -> list[int]:
    found = _BOX.search(path)
    if found is None:
        raise ValueError(f"{printable(path)} is not a region: its path has no #xywh=")
    return [int(side) for side in found.groups()]
