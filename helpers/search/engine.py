"""Engine: a feature extractor and an index, fitted to a gallery, that find images."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.features.file_hashes import identities
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.search.backends.remote import Payload, RemoteIndex
from helpers.search.gallery import GalleryTable
from helpers.search.identity import Additions, Candidates, Outcome, compare, file_paths, plan
from helpers.search.index import Index, UnsupportedByIndex, check_k, open_index
from helpers.search.persist import saving, snapshot
from helpers.search.persist.delta import DeltaIndex, apply_changes
from helpers.search.persist.engine_file import EngineFolderError
from helpers.search.persist.roots import Roots
from helpers.search.persist.snapshot import Manifest
from helpers.search.persist.wal import Change
from helpers.search.ranking import PAD, Ranking
from helpers.search.results import Result, Results

#: Gallery images by id, key or path.
ImageReferences = int | str | Path | Iterable[int | str | Path]


class UnopenedExtractor(FeatureExtractor):
    """The name and fingerprint of a saved engine's extractor, for changes that extract no features.

    With it, `Engine.load` and `LiveEngine.open` can remove images and compact without the network's weights.
    """

    fingerprint = ""

    def __init__(self, name: str, fingerprint: str):
        self.name, self.fingerprint = name, fingerprint

    @classmethod
    def of(cls, folder: str | Path) -> "UnopenedExtractor":
        """The extractor of a saved engine. Raises EngineFolderError as `snapshot.manifest_of` does."""
        manifest = snapshot.manifest_of(folder)
        return cls(manifest.extractor, manifest.fingerprint)

    def extract(self, *_: object, **__: object) -> np.ndarray:
        """Raises RuntimeError."""
        raise RuntimeError(f"this engine was loaded without its extractor {self.name!r}: load the engine with it")

    extract_arrays = compute = extract


class Engine:
    """A search engine for images.

    Before `fit`, all other methods raise RuntimeError.

    Parameters
    ----------
    extractor : a `FeatureExtractor`, or its name.
    index : an empty `Index`, or its name.

    >>> engine = Engine("resnet50", "exact:cosine").fit(gallery)     # doctest: +SKIP
    >>> engine.query("holiday.jpg", k=10)[0].path                    # doctest: +SKIP
    """

    def __init__(self, extractor: FeatureExtractor | str, index: Index | str = "exact:cosine"):
        self.extractor = _open_extractor(extractor) if isinstance(extractor, str) else extractor
        self.index: Index | DeltaIndex = open_index(index) if isinstance(index, str) else index
        if len(self.index):
            raise ValueError(f"the index must be empty, it holds {len(self.index)} vectors: open a new one")
        self._table: GalleryTable | None = None
        self._saved: saving.SavedState | None = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self._table is None else f"{len(self.table)} images of {self.table.name!r}"
        return f"Engine({self.extractor.name!r}, {self.index.spec!r}; {fitted})"

    def __len__(self) -> int:
        """Number of images that a query can find."""
        return len(self.index)

    @property
    def table(self) -> GalleryTable:
        """Path, label and class of each image by its id."""
        if self._table is None:
            raise RuntimeError("this engine has no gallery yet: call fit(gallery) first")
        return self._table

    @property
    def gallery(self) -> ImageSet:
        """All images, including removed ones: row *i* is the image with id *i*.

        After an addition, its next use takes time for each image. ``table`` does not.
        """
        return self.table.images

    @property
    def saved(self) -> saving.SavedState:
        """The saved state that it was loaded from or saved as."""
        if self._saved is None:
            raise RuntimeError("this engine was not saved yet: call save(folder) first")
        return self._saved

    @property
    def skipped(self) -> np.ndarray:
        """int64 (m,): ids of gallery images that no search finds, because they are unreadable or were removed."""
        return np.setdiff1d(np.arange(len(self.table)), self.index.ids)

    def fit(
        self,
        gallery: ImageSet,
        contents: Sequence[bytes | None] | None = None,
        display_names: Mapping[int, str] | None = None,
        source: str | None = None,
    ) -> "Engine":
        """Extract and index the features of a gallery, in place of an earlier one; the id of an image is its row.

        Images that cannot be read are not indexed; the extractor's warning names them. An index in a server is cleared
        first, and stores file name, path and label with each vector.

        Parameters
        ----------
        contents : `helpers.features.file_hashes.identities` of the files, if they were computed already.
        display_names, source : as in `GalleryTable`.

        Raises ValueError: the gallery has no readable image, or the extractor returned NaN or infinity.
        """
        if not len(gallery):
            raise ValueError(f"the gallery {gallery.name!r} is empty: there is nothing to search")
        # Before the features are extracted: a file that changes meanwhile must not pass for the extracted one later.
        contents = identities(gallery.paths) if contents is None else contents
        return self.fit_extracted(gallery, self.extractor.extract(gallery), contents, display_names, source)

    def fit_extracted(
        self,
        gallery: ImageSet,
        vectors: np.ndarray,
        contents: Sequence[bytes | None],
        display_names: Mapping[int, str] | None = None,
        source: str | None = None,
    ) -> "Engine":
        """`fit` with the feature vectors of the images, float32 (n, dim); rows of NaN are not indexed."""
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        if len(rows) < len(vectors):
            vectors = vectors[rows]
        if not len(rows):
            raise ValueError(f"no image of {gallery.name!r} can be read: there is nothing to search")
        table = GalleryTable.of(gallery, contents, display_names, source)
        index = self.index.base if isinstance(self.index, DeltaIndex) else self.index
        if isinstance(index, RemoteIndex):
            # The server has room for one gallery, so the former one is removed first.
            self._table = None
            index.clear().add(vectors, rows, _payload(table, rows))
        else:
            # Not in place: after an error the engine still searches the former gallery.
            if len(index) or index is not self.index:
                index = open_index(index.spec)
            index.add(vectors, rows)
        self.index, self._table, self._saved = index, table, None
        return self

    def add(self, images: ImageSet, classes: bool = False) -> Additions:
        """Add images; `helpers.search.identity` defines what becomes of those that the engine knows.

        New ids follow the highest id ever given. Classes of the same name are one class. Images that cannot be read
        get no id; the extractor's warning names them. A saved folder changes only with the next `save`; `LiveEngine`
        saves additions at once.

        classes : whether known images in another class get their new class.

        Raises ValueError: the extractor returned NaN or infinity.
        """
        before = self.table
        candidates = self.extract_candidates(images, classes)
        decided = plan(before, self.index.contains, candidates, classes)
        ids, vectors = decided.additions.ids[decided.rows], candidates.vectors[decided.rows]
        # The table first: a concurrent search must never find an id without an image.
        self._table = before.extended(
            [candidates.paths[row] for row in decided.rows],
            decided.class_names,
            [candidates.contents[row] for row in decided.rows],
        )
        try:
            if isinstance(self.index, DeltaIndex):
                self.index = self.index.changed(vectors, ids)
            elif isinstance(self.index, RemoteIndex):
                self.index.add(vectors, ids, _payload(self.table, ids))
            else:
                self.index.add(vectors, ids)
        except BaseException:
            self._table = before
            raise
        if len(decided.replaced):
            self.remove(decided.replaced)
        return decided.additions

    def extract_candidates(self, images: ImageSet, classes: bool = False) -> Candidates:
        """The features of the images that the engine does not hold; see `add`."""
        paths = file_paths(self.table, images.paths)
        # Before the features are extracted, as in `fit`.
        contents = identities(paths)
        class_names = class_names_of(images)
        known = compare(self.table, self.index.contains, paths, contents, class_names if classes else None)
        kept = [one.ids[-1] if one.outcome is Outcome.UNCHANGED and one.ids else -1 for one in known]
        new = [row for row, one in enumerate(known) if one.outcome is not Outcome.UNCHANGED]
        vectors = np.full((len(images), self.index.dim or self.extractor.dim), np.nan, np.float32)
        if new:
            vectors[new] = self.extractor.extract(images.subset(new))
        return Candidates(paths, contents, class_names, [None] * len(images), vectors, np.array(kept, np.int64))

    def remove(self, ids: Iterable[int]) -> None:
        """Remove images; their ids are not given again.

        If the index cannot remove vectors, searches skip these, and the next `save` builds a new index.

        Raises KeyError: an id is not in the index; nothing is removed.
        """
        self.table  # noqa: B018 (raises before fit)
        ids = np.asarray(list(ids), np.int64)
        if not isinstance(self.index, DeltaIndex):
            try:
                self.index.remove(ids)
                return
            except UnsupportedByIndex:
                self.index = DeltaIndex(self.index)
        self.index = self.index.changed(np.empty((0, self.index.dim or 0)), (), ids)

    def query(
        self, image: str | Path | bytes | np.ndarray, k: int = 10, exclude: ImageReferences | None = None
    ) -> Results:
        """The ``k`` most similar images to an image: a file, a file's bytes, or uint8 (height, width, 3) RGB.

        An image of the gallery is its own first result unless it is excluded. The ``note`` of the results says why
        there are fewer than ``k``.

        exclude : ids, keys or paths of gallery images that must not be found.

        Raises
        ------
        UnreadableImage : the image cannot be read.
        ValueError : k < 1, an array of another shape or type, or an excluded image is not in the gallery.
        """
        excluded = self._ids_of(exclude)
        return self.query_vector(self.extractor.extract_arrays([_pixels(image)])[0], k, excluded)

    def query_vector(self, vector: np.ndarray, k: int = 10, exclude: ImageReferences | None = None) -> Results:
        """`query` with a feature vector, float (dim,).

        Raises ValueError: k < 1, a bad vector, or an excluded image is not in the gallery.
        """
        k, excluded = check_k(k), self._ids_of(exclude)
        found = self.index.search(np.asarray(vector)[None], min(k, max(1, len(self.index))), excluded=excluded)
        results = self.results(found)
        return replace(results, note=self._note(k, len(results), excluded))

    def query_id(self, id: int, k: int = 10, exclude: ImageReferences | None = None) -> Results:
        """The most similar images to an image of the gallery, except itself, by the vector in the index.

        No features are extracted. An index of codes gives the vector that the code stands for.

        Raises KeyError: the id is not in the index; ValueError: k < 1, or an excluded image is not in the gallery.
        """
        excluded = np.union1d(self._ids_of(exclude), [id])
        return self.query_vector(self.index.vectors([id])[0], k, excluded)

    def results(self, ranking: Ranking) -> Results:
        """The images and classes of a ranking of one query (1, k).

        Raises ValueError: the ranking has not one row, or has an id that is not in the gallery.
        """
        # Read after the search, because an addition extends the table before the index.
        table = self.table
        if len(ranking) != 1 or ranking.ids.max(initial=PAD) >= len(table):
            raise ValueError(f"the ranking must be of one query and of ids below {len(table)}, got {ranking.ids}")
        found = ranking.ids[0] != PAD
        ranking = Ranking(ranking.ids[:, found], ranking.scores[:, found])
        return Results(
            tuple(
                Result(rank, int(i), float(score), table.path(i), table.label(i), table.class_name(i) or "–")
                for rank, (i, score) in enumerate(zip(ranking.ids[0], ranking.scores[0], strict=True), start=1)
            ),
            ranking,
        )

    def save(self, folder: str | Path, replace: bool = False, former: saving.SavedState | None = None) -> Path:
        """Write a folder: the index, paths and classes of the images, and the extractor's name; no pickle.

        The save is one transaction: an interrupted one leaves the old engine. Processes that have opened an engine from
        there continue with the new one.

        Parameters
        ----------
        replace : an engine of another format, too.
        former : the state of the engine in the folder that this one was made from, if it was not loaded from there.

        Raises
        ------
        FileExistsError : the folder holds files that are not an engine.
        EngineFolderError : other processes have changed the engine in the folder since it was loaded from there.
        IndexFileError : it cannot be written; the old engine is kept.
        """
        table, folder, former = self.table, Path(folder), former or self._saved
        saving.check_target(folder, former, replace)
        if isinstance(self.index, DeltaIndex):
            self.index = self.index.compacted()
        extractor = self.extractor.name, self.extractor.fingerprint
        self._saved = saving.save(folder, extractor, table, self.index, former, replace)
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        extractor: FeatureExtractor | None = None,
        root: str | Path | None = None,
        mmap: bool = False,
    ) -> "Engine":
        """Load a saved engine, with the changes in its write-ahead log. The image files need not exist.

        Parameters
        ----------
        extractor : the one it was saved with; by default it is opened by its name, with default settings.
        root : the folder of the gallery's images. By default, it is found at its place relative to the engine's folder,
            or at its former path; ``engine.saved.roots.missing`` lists the folders that are not there.
        mmap : leave the vectors on disk, see `load_index`.

        Raises
        ------
        EngineFolderError : there is no engine, a file is missing, damaged or of another version, or the extractor
            differs.
        IndexFileError : the index file is damaged.
        """
        folder = Path(folder)
        if extractor is None:
            name = snapshot.manifest_of(folder).extractor
            try:
                extractor = _open_extractor(name)
            except KeyError as error:
                raise EngineFolderError(
                    f"{folder} was made by the extractor {name!r}, which cannot be opened by name. "
                    "Give it: Engine.load(folder, extractor)."
                ) from error
        state, table, index, changes = saving.load(folder, extractor.fingerprint, root, mmap)
        engine = cls(extractor)
        engine._table, engine.index, engine._saved = table, index, state
        return engine.replay(changes, state.roots)

    def replay(self, changes: Sequence[Change], roots: Roots) -> "Engine":
        """Another engine with changes of the folder's log applied; this one does not change.

        roots : those of this engine, and further ones of the changes.

        The cost depends on the number of changes, not on the size of the gallery.

        Raises EngineFolderError: the log does not continue this engine.
        """
        if not changes:
            return self
        table = self.table
        added = [change for change in changes if change.vector is not None]
        # Ids are rows, so the log must neither skip nor repeat one.
        if [change.id for change in added] != list(range(len(table), len(table) + len(added))):
            raise EngineFolderError(
                f"The log of {roots.folder} does not continue its engine: the folder's files are of different times. "
                "Restore all of its files together, or index again."
            )
        other = copy.copy(self)
        other._table = table.extended(
            [roots.decode(change.path, change.place) for change in added],
            [change.class_name for change in added],
            [change.content for change in added],
            [change.name for change in added],
        )
        other.index = apply_changes(self.index, changes)
        other._saved = replace(self.saved, position=changes[-1].number, roots=roots)
        return other

    def rebased(self, base: Index, manifest: Manifest) -> "Engine":
        """Another engine that searches a compacted index file, and the changes that are not in it."""
        other = copy.copy(self)
        other.index = self.index.rebased(base, manifest.images) if isinstance(self.index, DeltaIndex) else base
        other._saved = replace(self.saved, compacted=manifest.log_position)
        return other

    def _ids_of(self, exclude: ImageReferences | None) -> np.ndarray:
        """int64 (m,): the ids of gallery images."""
        table = self.table
        if exclude is None:
            return np.empty(0, np.int64)
        if isinstance(exclude, np.ndarray) and exclude.dtype.kind in "iu":
            wrong = exclude[(exclude < 0) | (exclude >= len(table))]
            if len(wrong):
                raise ValueError(f"{wrong[0]} cannot be excluded: it is not an id of {table.name!r}")
            return np.unique(exclude).astype(np.int64)
        items = [exclude] if isinstance(exclude, int | np.integer | str | Path) else list(exclude)
        ids = []
        for item in items:
            id = table.id_of(item) if isinstance(item, str | Path) else int(item)
            if id is None or not 0 <= id < len(table):
                raise ValueError(f"{item!r} cannot be excluded: it is not an id, key or path of {table.name!r}")
            ids.append(id)
        return np.unique(np.array(ids, dtype=np.int64))

    def _note(self, k: int, found: int, excluded: np.ndarray) -> str:
        if found == k:
            return ""
        fewer = int(self.index.contains(excluded).sum())
        held = f"the index holds {len(self)} images" + (f", {fewer} of them excluded" if fewer else "")
        if found < min(k, len(self) - fewer):
            return (
                f"{k} results requested, {self.index.spec} found {found}: {held}, but an approximate search may miss "
                "some. Call the index's `tune` to search with more effort."
            )
        return f"{k} results requested, there are {found}: {held}"


def class_names_of(images: ImageSet) -> list[str | None]:
    """The class name of each image, None for no class."""
    return [images.class_name(row) if label >= 0 else None for row, label in enumerate(images.labels)]


def _payload(table: GalleryTable, ids: np.ndarray) -> list[Payload]:
    return [Payload(table.display_name(id), str(table.path(id)), table.label(id)) for id in ids]


def _pixels(image: str | Path | bytes | np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3), got {image.dtype} {image.shape}")
    return image


def _open_extractor(name: str) -> FeatureExtractor:
    from helpers.features.registry import open_extractor

    return open_extractor(name)
