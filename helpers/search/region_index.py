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
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.features.region_vectors import region_vectors
from helpers.features.regions import Regions, RegionSource, region_source
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.search.backends.remote import RemoteIndex
from helpers.search.engine import Engine, UnopenedExtractor
from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, open_index
from helpers.search.persist import region_boxes, snapshot
from helpers.search.persist.engine_file import EngineFile, EngineFolderError
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.region_boxes import StoredSource
from helpers.search.region_search import GalleryRegions
from helpers.text import printable

#: The folder of the regions' vectors, in the engine's folder.
FOLDER = "regions"

#: Images whose regions are found and written, or whose vectors are extracted, at a time.
_STEP = 256
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
        self._lock, self._updating = threading.Lock(), threading.Lock()
        self._live: LiveEngine | None = None
        self._version, self._last = -1, 0
        self._boxes: dict[bytes, Regions] = {}
        self._entries = _Entries()
        self._latest: tuple[object, object, GalleryRegions] | None = None

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
        """The regions of an engine's images. Regions of removed images may be among them; searches hide these.

        engine : the present one of the folder, see `LiveEngine.engine`.
        """
        with self._lock:
            regions = self._refresh(engine)
            if regions is None:
                return GalleryRegions.of_vectors(np.empty(0, np.int64), [], [])
            latest = self._latest
            if latest is not None and latest[0] is engine.table and latest[1] is regions.index:
                return latest[2]
            entries = self._entries
            if entries.snapshots != (engine.saved.snapshot_id, regions.saved.snapshot_id):
                self._entries = entries = _Entries((engine.saved.snapshot_id, regions.saved.snapshot_id))
            entries.extend(engine.table, regions.table)
            found = GalleryRegions(regions.index, *entries.arrays(regions.table, self._boxes))
            self._latest = engine.table, regions.index, found
            return found

    def missing(self, engine: Engine) -> np.ndarray:
        """int64 (m,): the ids of images whose regions, or their vectors, are not stored yet."""
        with self._lock:
            regions = self._refresh(engine)
            table = engine.table
            indexed = set() if regions is None else _contents_of(regions)
            ids = engine.index.ids
            waiting = [self._waits(table.content(id), indexed) for id in ids.tolist()]
            return ids[np.array(waiting, bool)]

    def extract_missing(self, engine: Engine, progress: Callable[[int], object] | None = None) -> int:
        """Find and store the regions of images that have none yet; returns the number of these images.

        Raises NoRegions: the stored regions are of another version of their source. Raises `WeightsUnavailable`.
        """
        if not len(self.missing(engine)):
            return 0
        with self._updating:
            return update_regions(self.folder, engine, open_source(self.folder), progress).found

    def _waits(self, content: bytes | None, indexed: set[bytes]) -> bool:
        if content is None:
            return False
        boxes = self._boxes.get(content)
        return boxes is None or (len(boxes) > 0 and content not in indexed)

    def _refresh(self, engine: Engine) -> Engine | None:
        """Read what was stored since the last call; the engine of the regions.

        None if there is none of the extractor of ``engine``.
        """
        version = self._file.version()
        if version != self._version:
            with self._file.reading() as connection:
                stored = region_boxes.source_of(connection)
                if stored is None or stored.fingerprint != self._stored.fingerprint:
                    self._boxes, self._last = {}, 0
                new, self._last = region_boxes.read(connection, self._last)
            if stored is None:
                raise _no_regions(self.folder)
            self._boxes.update(new)
            self._stored, self._version = stored, version
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
        if self._live is None or self._live.engine.extractor.fingerprint != engine.extractor.fingerprint:
            return None
        return self._live.engine


class _Entries:
    """The pairs of images and regions with the same content. Rows are only added, because ids are never given again."""

    def __init__(self, snapshots: tuple[str, str] = ("", "")):
        self.snapshots = snapshots
        self._images, self._regions = 0, 0
        self._by_content: dict[bytes, list[int]] = defaultdict(list)
        self._pairs: list[tuple[int, int]] = []

    def extend(self, images: GalleryTable, regions: GalleryTable) -> None:
        """Pair the rows that were added to the tables since the last call."""
        for region in range(self._regions, len(regions)):
            content = regions.content(region)
            if content is not None:
                self._by_content[content].append(region)
                self._pairs += [(image, region) for image in images.ids_with(content) if image < self._images]
        for image in range(self._images, len(images)):
            content = images.content(image)
            if content is not None:
                self._pairs += [(image, region) for region in self._by_content.get(content, ())]
        self._images, self._regions = len(images), len(regions)

    def arrays(
        self, regions: GalleryTable, stored: dict[bytes, Regions]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str | None], np.ndarray]:
        """The images, regions, boxes, classes and scores of all pairs."""
        pairs = np.array(self._pairs, np.int64).reshape(-1, 2)
        numbers = np.unique(pairs[:, 1])
        boxes = np.array([_box_of(str(regions.path(row))) for row in numbers.tolist()]).reshape(-1, 4)
        contents = map(regions.content, numbers.tolist())
        scores = np.array([_score(stored, content, box) for content, box in zip(contents, boxes, strict=True)])
        rows = np.searchsorted(numbers, pairs[:, 1])
        names = [regions.class_name(row) for row in pairs[:, 1].tolist()]
        return pairs[:, 0], pairs[:, 1], boxes[rows], names, scores.astype(np.float32)[rows]


def update_regions(
    folder: str | Path, engine: Engine, source: RegionSource, progress: Callable[[int], object] | None = None, *,
    files: tuple[str, str] | None = None,
) -> RegionUpdate:  # fmt: skip
    """Find and store the regions of an engine's images, and remove those of images that it does not hold any more.

    Regions that are stored already, of the same source, are kept; an interrupted call continues there. Regions of
    another source are replaced.

    Parameters
    ----------
    engine : of the folder, with its extractor.
    progress : called with the number of images after each step.
    files : of the source's detector, if it is the reader's own: the network and its labels.
    """
    folder, table = Path(folder), engine.table
    ids = engine.index.ids.tolist()
    first = {content: id for id in reversed(ids) if (content := table.content(id)) is not None}
    unknown = sum(table.content(id) is None for id in ids)
    with EngineFile(folder) as file:
        with file.writing() as connection:
            region_boxes.start(connection, StoredSource(source.name, source.fingerprint, *(files or (None, None))))
            todo = {first[content]: content for content in region_boxes.missing(connection, first)}
        skipped = 0
        for start in range(0, len(todo), _STEP):
            part = list(todo)[start : start + _STEP]
            found = source.find([table.path(id) for id in part])
            readable = {todo[id]: one for id, one in zip(part, found, strict=True) if one is not None}
            with file.writing() as connection:
                region_boxes.write(connection, list(readable), list(readable.values()))
            skipped += len(part) - len(readable)
            if progress is not None:
                progress(len(part))
        with file.reading() as connection:
            stored, _ = region_boxes.read(connection)
    wanted = {id: stored[content].boxes for content, id in first.items() if len(stored.get(content, ()))}
    names = {id: stored[content].class_names for content, id in first.items() if id in wanted}
    added, removed = _update_vectors(folder, engine, source, wanted, names)
    return RegionUpdate(len(todo), skipped + unknown, added, removed)


def _update_vectors(
    folder: Path, engine: Engine, source: RegionSource, boxes: dict[int, np.ndarray],
    names: dict[int, tuple[str | None, ...]],
) -> tuple[int, int]:  # fmt: skip
    """Bring the engine of the regions up to date: the numbers of added and removed regions.

    boxes, names : of the images with regions, by id.
    """
    own, table = folder / FOLDER, engine.table
    with _opened(own, engine, source) as live:
        if live is None:
            rows = _rows(engine, boxes, names)
            if rows is not None:
                _make(own, engine, source, rows)
            return 0 if rows is None else len(rows.vectors), 0
        present = live.engine
        held = present.index.ids
        contents = [present.table.content(id) for id in held.tolist()]
        known, wanted = set(contents), {table.content(id) for id in boxes}
        gone = held[np.array([content not in wanted for content in contents], bool)]
        if len(gone):
            live.remove(gone)
        new = [id for id in boxes if table.content(id) not in known]
        added = 0
        for start in range(0, len(new), _STEP):
            part = {id: boxes[id] for id in new[start : start + _STEP]}
            rows = _rows(engine, part, names)
            if rows is not None:
                live.add_extracted(rows.paths, rows.vectors, rows.class_names, rows.contents, compare=False)
                added += len(rows.vectors)
        live.wait_for_compaction()
        return added, len(gone)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Regions with vectors, as rows of an engine."""

    paths: list[str]
    vectors: np.ndarray
    class_names: list[str | None]
    contents: list[bytes | None]


def _rows(engine: Engine, boxes: dict[int, np.ndarray], names: dict[int, tuple[str | None, ...]]) -> _Rows | None:
    """The regions of some images, without those of files that cannot be read; None if there is none."""
    ids, table = list(boxes), engine.table
    found = region_vectors(engine.extractor, [table.path(id) for id in ids], [boxes[id] for id in ids])
    rows = [
        (id, box, name, vector)
        for id, vectors in zip(ids, found, strict=True)
        for box, name, vector in zip(boxes[id], names[id], vectors, strict=True)
        if not np.isnan(vector).any()
    ]
    if not rows:
        return None
    return _Rows(
        [f"{table.path(id)}#xywh={','.join(str(int(side)) for side in box)}" for id, box, _, _ in rows],
        np.stack([vector for *_, vector in rows]),
        [name for _, _, name, _ in rows],
        [table.content(id) for id, *_ in rows],
    )


@contextlib.contextmanager
def _opened(own: Path, engine: Engine, source: RegionSource) -> Iterator[LiveEngine | None]:
    """The engine of the regions; None if there is none of this extractor, backend and source."""
    if not snapshot.is_engine(own):
        yield None
        return
    manifest = snapshot.manifest_of(own)
    if (manifest.fingerprint, manifest.index_spec, manifest.name) != (
        engine.extractor.fingerprint, _spec(engine), source.fingerprint,
    ):  # fmt: skip
        yield None
        return
    with LiveEngine.open(own, UnopenedExtractor.of(own)) as live:
        yield live


def remove_unused(folder: str | Path, engine: Engine) -> int:
    """Remove the regions of images that an engine no longer holds, and compact the rest; returns their number."""
    own = Path(folder) / FOLDER
    if not snapshot.is_engine(own):
        return 0
    held = {engine.table.content(id) for id in engine.index.ids.tolist()}
    with LiveEngine.open(own, UnopenedExtractor.of(own)) as live:
        ids = live.engine.index.ids
        gone = ids[np.array([live.engine.table.content(id) not in held for id in ids.tolist()], bool)]
        if len(gone):
            live.remove(gone)
        live.compact()
    return len(gone)


def _make(own: Path, engine: Engine, source: RegionSource, rows: _Rows) -> None:
    """Save an engine of regions in place of an earlier one."""
    names = sorted({name for name in rows.class_names if name is not None})
    labels = np.array([NO_CLASS if name is None else names.index(name) for name in rows.class_names])
    images = ImageSet(source.fingerprint, tuple(Path(path) for path in rows.paths), labels, tuple(names))
    index = open_index(_spec(engine))
    extractor = UnopenedExtractor(engine.extractor.name, engine.extractor.fingerprint)
    made = Engine(extractor, _empty(index)).fit_extracted(images, rows.vectors, rows.contents)
    made.save(own, replace=True)


def _empty(index: Index) -> Index:
    return index.clear() if isinstance(index, RemoteIndex) and len(index) else index


def _spec(engine: Engine) -> str:
    """The index of the regions, as a name for `open_index`: that of the engine; on a server, another name."""
    spec = engine.index.spec
    scheme, _, rest = spec.partition(":")
    if not rest.startswith("//"):
        return spec
    location, _, options = rest.partition("?")
    return f"{scheme}:{location.rstrip('/')}_regions{'?' if options else ''}{options}"


def stored_source(folder: str | Path) -> StoredSource:
    """The source of a saved engine's regions. Raises NoRegions: none are stored."""
    with EngineFile(folder) as file, file.reading() as connection:
        stored = region_boxes.source_of(connection)
    if stored is None:
        raise _no_regions(folder)
    return stored


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


def _no_regions(folder: str | Path) -> NoRegions:
    return NoRegions(
        f"{printable(folder)} has no regions. Add them: lookalike index FOLDER --regions detector "
        f"-o {shlex.quote(str(folder))}"
    )


def _contents_of(regions: Engine) -> set[bytes]:
    found = (regions.table.content(id) for id in regions.index.ids.tolist())
    return {content for content in found if content is not None}


def _box_of(path: str) -> Sequence[int]:
    found = _BOX.search(path)
    if found is None:
        raise ValueError(f"{printable(path)} is not a region: its path has no #xywh=")
    return [int(side) for side in found.groups()]


def _score(stored: dict[bytes, Regions], content: bytes | None, box: np.ndarray) -> float:
    """The score of a region; 1 if its row was deleted meanwhile."""
    regions = None if content is None else stored.get(content)
    if regions is None:
        return 1.0
    rows = np.flatnonzero((regions.boxes == box).all(axis=1))
    return float(regions.scores[rows[0]]) if len(rows) else 1.0
