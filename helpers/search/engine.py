"""Engine: an extractor and an index, fitted on a gallery, that answers with images."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.search.backends.remote import Payload
from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, UnsupportedByIndex, check_k, open_index
from helpers.search.persist import saving, snapshot
from helpers.search.persist.delta import DeltaIndex, apply_changes
from helpers.search.persist.snapshot import EngineFolderError, Manifest, StoredPaths
from helpers.search.persist.wal import Change
from helpers.search.ranking import PAD, Ranking
from helpers.search.results import Result, Results

if TYPE_CHECKING:
    from helpers.features.extractor import FeatureExtractor


@dataclass(frozen=True)
class UnopenedExtractor:
    """The name and fingerprint of a saved engine's extractor, for changes that compute no vectors.

    Pass it to `Engine.load` or `LiveEngine.open` to remove images or to compact: no weights are read, and none have to
    be available.
    """

    name: str
    fingerprint: str

    @classmethod
    def of(cls, folder: str | Path) -> "UnopenedExtractor":
        """The extractor that a saved engine names.

        Raises
        ------
        EngineFolderError : no engine is there, or it is damaged or of another version.
        """
        manifest = snapshot.manifest_of(folder)
        return cls(manifest.extractor, manifest.fingerprint)

    def extract(self, *_, **__) -> np.ndarray:
        """Not possible.

        Raises
        ------
        RuntimeError : always.
        """
        raise RuntimeError(f"this engine was loaded without its extractor {self.name!r}: load it again to describe")

    extract_arrays = extract


class Engine:
    """A search engine for images.

    Parameters
    ----------
    extractor : a `FeatureExtractor`, or its name.
    index : an empty `Index`, or its name.

    Attributes
    ----------
    table : path, label and class of each image by its id (`GalleryTable`), or None before `fit`.
    skipped : int64 (m,): ids of the gallery's images that no search finds: they could not be read, or were removed.
    saved : the saved state that it was loaded from or saved as, or None.

    >>> engine = Engine("resnet50", "exact:cosine").fit(gallery)     # doctest: +SKIP
    >>> engine.query("holiday.jpg", k=10)[0].path                    # doctest: +SKIP
    """

    def __init__(self, extractor: "FeatureExtractor | str", index: Index | str = "exact:cosine"):
        self.extractor = _open_extractor(extractor) if isinstance(extractor, str) else extractor
        self.index = open_index(index) if isinstance(index, str) else index
        if len(self.index):
            raise ValueError(f"the index must be empty, it holds {len(self.index)} vectors: open a new one")
        self.table: GalleryTable | None = None
        self.saved: saving.SavedState | None = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self.table is None else f"{len(self.table)} images of {self.table.name!r}"
        return f"Engine({self.extractor.name!r}, {self.index.spec!r}; {fitted})"

    def __len__(self) -> int:
        """Images that a query can find."""
        return len(self.index)

    @property
    def gallery(self) -> ImageSet | None:
        """All images, also those that were removed: row *i* is the image with id *i*; None before `fit`.

        After an addition, the next use makes a new set, which costs time for each image. ``table`` does not.
        """
        return None if self.table is None else self.table.images

    @property
    def skipped(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self._fitted())), self.index.ids)

    def fit(self, gallery: ImageSet) -> "Engine":
        """Describe and index a gallery; the id of an image is its row. What was fitted before is forgotten.

        Images that can't be read stay out of the index, after the extractor's warning that counts and names them.
        An index in a server is cleared first, and keeps each image's file name, path and label beside its vector.

        Raises
        ------
        ValueError : the gallery is empty, no image of it can be read, or the extractor gave a number that is none.
        """
        if not len(gallery):
            raise ValueError(f"the gallery {gallery.name!r} is empty: there is nothing to search")
        vectors = self.extractor.extract(gallery)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        if not len(rows):
            raise ValueError(f"no image of {gallery.name!r} can be read: there is nothing to search")
        table = GalleryTable.of(gallery)
        if self.index.remote:
            # There is one place for it, so that what was there has to go first.
            self.table = None
            self.index.clear().add(vectors[rows], rows, _payload(table, rows))
        else:
            # Filled first and put in place last: after an error the engine answers as before.
            index = open_index(self.index.spec) if len(self.index) else self.index
            self.index = index.add(vectors[rows], rows)
        self.table, self.saved = table, None
        return self

    def add(self, images: ImageSet) -> np.ndarray:
        """Describe more images and put them in: int64 (m,), the ids of those that can be read, in their order.

        Ids of images go on from the highest ever given. Classes of the same name are one class. Images that
        can't be read stay out and get no id, after the extractor's warning that counts and names them. A saved folder
        knows nothing of it before the next `save`; see `helpers.search.persist.live` for what lasts at once.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : the extractor gave a number that is none.
        """
        before = self._fitted()
        vectors = self.extractor.extract(images)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        ids = np.arange(len(before), len(before) + len(rows))
        class_names = [images.class_name(row) if images.labels[row] >= 0 else None for row in rows]
        # First the table: a search meanwhile must never find an id without an image.
        self.table = before.extended([images.paths[row] for row in rows], class_names)
        try:
            if isinstance(self.index, DeltaIndex):
                self.index = self.index.changed(vectors[rows], ids)
            elif self.index.remote:
                self.index.add(vectors[rows], ids, _payload(self.table, ids))
            else:
                self.index.add(vectors[rows], ids)
        except BaseException:
            self.table = before
            raise
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Take images out: no search finds them any more, and their ids are not given again.

        In an index that can't remove they are passed over from now on, and the next `save` builds it anew.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        KeyError : an id is not in the index; nothing is removed then.
        """
        self._fitted()
        ids = np.asarray(list(ids), np.int64)
        if not isinstance(self.index, DeltaIndex):
            try:
                self.index.remove(ids)
                return
            except UnsupportedByIndex:
                self.index = DeltaIndex(self.index)
        self.index = self.index.changed(np.empty((0, self.index.dim)), (), ids)

    def query(
        self,
        image: str | Path | bytes | np.ndarray,
        k: int = 10,
        exclude: Iterable[int | str | Path] | None = None,
    ) -> Results:
        """The ``k`` images that look most like one: a file, a file's bytes, or uint8 (height, width, 3) RGB.

        An image that is itself in the gallery is its own first answer, unless it is excluded. Where ``k`` is more
        than there is, all come back, and the answers' ``note`` says so.

        exclude : ids, keys or paths of gallery images that must not be among the answers.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        UnreadableImage : the image can't be read.
        ValueError : k < 1, an array of another shape or type, or something excluded that is not in the gallery.
        """
        self._fitted()
        return self.query_vector(self.extractor.extract_arrays([_pixels(image)])[0], k, exclude)

    def query_vector(
        self, vector: np.ndarray, k: int = 10, exclude: Iterable[int | str | Path] | None = None
    ) -> Results:
        """`query` for a vector, float (dim,), that the extractor or arithmetic on its vectors gave.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : k < 1, the vector is none, or something excluded is not in the gallery.
        """
        self._fitted()
        k, dropped = check_k(k), self._ids_of(exclude)
        found = self.index.search(np.asarray(vector)[None], min(k, max(1, len(self.index))), excluded=dropped)
        results = self.results(found)
        return Results(results.results, results.ranking, self._note(k, len(results), dropped))

    def query_id(self, id: int, k: int = 10, exclude: Iterable[int | str | Path] | None = None) -> Results:
        """The images that look most like one of the gallery, by the vector that the index keeps; never itself.

        Nothing is read or described, so it is quick; in an index that keeps codes, it asks by what its code stands for.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        KeyError : the id is not in the index.
        ValueError : k < 1, or something excluded that is not in the gallery.
        """
        self._fitted()
        vector = self.index.vectors([id])[0]
        return self.query_vector(vector, k, np.union1d(self._ids_of(exclude), [id]))

    def results(self, ranking: Ranking) -> Results:
        """The images and classes of a ranking of one query (1, k).

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : the ranking is of another number of queries, or holds an id that is not in the gallery.
        """
        # Taken after the search: the table is extended before the index is.
        table = self._fitted()
        if len(ranking) != 1 or ranking.ids.max(initial=PAD) >= len(table):
            raise ValueError(f"the ranking must be of one query and of ids below {len(table)}, got {ranking.ids}")
        found = ranking.ids[0] != PAD
        ranking = Ranking(ranking.ids[:, found], ranking.scores[:, found])
        return Results(
            tuple(
                Result(place, int(i), float(score), table.path(i), table.label(i), table.class_name(i) or "–")
                for place, (i, score) in enumerate(zip(ranking.ids[0], ranking.scores[0], strict=True), start=1)
            ),
            ranking,
        )

    def query_many(self, images: ImageSet, k: int = 10) -> Ranking:
        """The ``k`` nearest to each image of a set: Ranking (n, k), row by row.

        Rows are padded with -1 where ``k`` is more than there is. The row of an image that can't be read is all
        padding, after the extractor's warning.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : k < 1.
        """
        self._fitted()
        k = check_k(k)
        vectors = self.extractor.extract(images)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        found = self.index.search(vectors[rows], k)
        ids = np.full((len(images), k), PAD, np.int64)
        scores = np.full((len(images), k), -np.inf, found.scores.dtype)
        ids[rows], scores[rows] = found.ids, found.scores
        return Ranking(ids, scores)

    def save(self, folder: str | Path) -> Path:
        """Write a folder: the index, the paths and classes of the images, and the extractor's name; no pickle.

        One transaction makes the new files count: a save that is interrupted leaves the old engine. Processes that have
        an engine open from there go on with the new one.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        FileExistsError : the folder is there and holds something else than an engine.
        EngineFolderError : it was loaded from there, and other processes have changed the engine there since.
        IndexFileError : it can't be written; what was saved before is untouched.
        """
        table, folder = self._fitted(), Path(folder)
        saving.check_target(folder, self.saved)
        if isinstance(self.index, DeltaIndex):
            self.index = self.index.compacted()
        extractor = self.extractor.name, self.extractor.fingerprint
        self.saved = saving.save(folder, extractor, table, self.index, self.saved)
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        extractor: "FeatureExtractor | UnopenedExtractor | None" = None,
        root: str | Path | None = None,
        mmap: bool = False,
    ) -> "Engine":
        """Read what `save` wrote, and take in what was added and removed since (`helpers.search.persist.live`).

        The images are not looked for: a search needs their vectors only.

        Parameters
        ----------
        extractor : the one it was saved with; opened by its name and default settings if left out. An
            `UnopenedExtractor` is enough to remove images and to save.
        root : where the images are now, if they were moved.
        mmap : leave the vectors on disk, see `load_index`.

        Raises
        ------
        EngineFolderError : no engine is there, a file of it is missing or damaged or of another version, or the
            extractor differs.
        IndexFileError : the index in it is damaged.
        """
        folder, engine = Path(folder), None

        def check(manifest: Manifest) -> None:
            nonlocal engine
            engine = cls(_saved_extractor(folder, manifest.extractor) if extractor is None else extractor)
            if engine.extractor.fingerprint != manifest.fingerprint:
                raise EngineFolderError(
                    f"{folder} was made by {manifest.fingerprint}, this extractor is {engine.extractor.fingerprint}: "
                    "their vectors can't be compared. Give the same extractor with the same settings, or fit and save "
                    "again."
                )

        loaded = saving.load(folder, check, root, mmap)
        engine.table, engine.index, engine.saved = loaded.table, loaded.index, loaded.state
        return engine.replay(loaded.changes, folder)

    def replay(self, changes: Sequence[Change], folder: str | Path) -> "Engine":
        """Another engine with changes of its folder's log applied; this one stays as it is.

        The cost depends on the number of changes, not on the size of the gallery.

        Raises
        ------
        EngineFolderError : the log does not continue this engine.
        """
        if not changes:
            return self
        added = [change for change in changes if change.vector is not None]
        # Ids are rows: the log leaves none out, and gives none twice.
        if [change.id for change in added] != list(range(len(self.table), len(self.table) + len(added))):
            raise EngineFolderError(
                f"The log of {folder} does not continue the engine beside it: a file of the folder is of another time. "
                "Restore all of its files together, or index again."
            )
        decode = StoredPaths(self.table.root, Path(folder)).decode
        other = copy.copy(self)
        other.table = self.table.extended(
            [decode(change.path, change.place) for change in added], [change.class_name for change in added]
        )
        other.index = apply_changes(self.index, changes)
        other.saved = replace(self.saved, position=changes[-1].number)
        return other

    def rebased(self, base: Index, manifest: Manifest) -> "Engine":
        """Another engine that searches a compacted index file, and over it the changes that are not in it."""
        other = copy.copy(self)
        other.index = self.index.rebased(base, manifest.images) if isinstance(self.index, DeltaIndex) else base
        other.saved = replace(self.saved, compacted=manifest.log_position)
        return other

    def _fitted(self) -> GalleryTable:
        if self.table is None:
            raise RuntimeError("this engine has no gallery yet: call fit(gallery) first")
        return self.table

    def _ids_of(self, exclude) -> np.ndarray:
        """int64 (m,): the ids of gallery images that were given as ids, keys or paths."""
        if exclude is None:
            return np.empty(0, np.int64)
        items = [exclude] if isinstance(exclude, int | np.integer | str | Path) else list(exclude)
        ids = []
        for item in items:
            id = self.table.id_of(item) if isinstance(item, str | Path) else int(item)
            if id is None or not 0 <= id < len(self.table):
                raise ValueError(f"{item!r} can't be excluded: it is no id, key or path of {self.table.name!r}")
            ids.append(id)
        return np.unique(np.array(ids, dtype=np.int64))

    def _note(self, k: int, found: int, dropped: np.ndarray) -> str:
        if found == k:
            return ""
        less = int(self.index.contains(dropped).sum())
        held = f"the index holds {len(self)} images" + (f", {less} of them excluded" if less else "")
        if found < min(k, len(self) - less):
            return (
                f"{k} answers were asked for, {self.index.spec} found {found}: {held}, but an approximate search does "
                "not reach all of them. A wider one does (the index's tune)."
            )
        return f"{k} answers were asked for, there are {found}: {held}"


def _payload(table: GalleryTable, ids: np.ndarray) -> list[Payload]:
    return [Payload(table.path(id).name, str(table.path(id)), table.label(id)) for id in ids]


def _pixels(image) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3), got {image.dtype} {image.shape}")
    return image


def _open_extractor(name: str) -> "FeatureExtractor":
    from helpers.features.registry import open_extractor

    return open_extractor(name)


def _saved_extractor(folder: Path, name: str) -> "FeatureExtractor":
    try:
        return _open_extractor(name)
    except KeyError as error:
        raise EngineFolderError(
            f"{folder} was made by the extractor {name!r}, which is not one that can be opened by name. "
            "Give it: Engine.load(folder, extractor)."
        ) from error
