"""Engine: a describer and an index, fitted on a gallery, that answers with pictures."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers.pictures.imageset import ImageSet
from helpers.pictures.reading import read_picture
from helpers.search.backends.remote import Payload
from helpers.search.index import (
    Index,
    IndexFileError,
    UnsupportedByIndex,
    check_k,
    load_index,
    open_index,
    write_atomically,
)
from helpers.search.journal import NAME as JOURNAL
from helpers.search.journal import Change, Journal
from helpers.search.overlay import Overlay
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    from helpers.features.describer import Describer

#: The layout of saved folders; a reader refuses any other.
FORMAT = 2

CARD = "engine.json"
_NAMED = {
    "describer", "fingerprint", "index", "pictures", "pictures_sha256", "counts", "lineage", "folded",
}  # fmt: skip


class EngineFolderError(IndexFileError):
    """A folder that should hold an engine and does not, or one of another describer; the message says which."""


@dataclass(frozen=True)
class UnopenedDescriber:
    """The name and fingerprint of a saved engine's describer, for changes that compute no vectors.

    Pass it to `Engine.load` or `LiveEngine.open` to remove pictures or fold changes: no weights are read, and none
    have to be available.
    """

    name: str
    fingerprint: str

    @classmethod
    def of(cls, folder: str | Path) -> "UnopenedDescriber":
        """The describer that a saved engine names.

        Raises
        ------
        EngineFolderError : no engine is there, or it is damaged or of another version.
        """
        card = read_card(folder)
        return cls(card["describer"], card["fingerprint"])

    def describe(self, *_, **__) -> np.ndarray:
        """Not possible.

        Raises
        ------
        RuntimeError : always.
        """
        raise RuntimeError(f"this engine was loaded without its describer {self.name!r}: load it again to describe")

    describe_arrays = describe


@dataclass(frozen=True)
class Answer:
    """One answer: its place (1 is best), id, score (higher is better), file and class (-1 and "–" for none)."""

    rank: int
    id: int
    score: float
    path: Path
    label: int
    class_name: str

    def read(self) -> np.ndarray:
        """The picture itself, uint8 (height, width, 3).

        Raises
        ------
        UnreadablePicture : it is no longer where it was.
        """
        return read_picture(self.path)


@dataclass(frozen=True, eq=False)
class Answers(Sequence):
    """The answers to one query, best first.

    ``ranking`` holds the same ids and scores, as one row without padding. ``note`` says in words why there are
    fewer answers than were asked for; it is empty where there are not.
    """

    answers: tuple[Answer, ...]
    ranking: Ranking
    note: str = ""

    def __getitem__(self, place):
        return self.answers[place]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    def __repr__(self) -> str:
        lines = [f"{answer.rank:4}  {answer.score:8.4f}  {answer.class_name:<20}  {answer.path}" for answer in self]
        return "\n".join([*lines, *([self.note] if self.note else [])])


class Engine:
    """A search engine for pictures.

    Parameters
    ----------
    describer : a `Describer`, or its name.
    index : an empty `Index`, or its name.

    Attributes
    ----------
    gallery : what was fitted, or None. A picture's id is its row there.
    skipped : int64 (m,): ids of the gallery's pictures that no search finds: they could not be read, or were removed.

    >>> engine = Engine("resnet50", "exact:cosine").fit(gallery)     # doctest: +SKIP
    >>> engine.query("holiday.jpg", k=10)[0].path                    # doctest: +SKIP
    """

    def __init__(self, describer: "Describer | str", index: Index | str = "exact:cosine"):
        self.describer = _open_describer(describer) if isinstance(describer, str) else describer
        self.index = open_index(index) if isinstance(index, str) else index
        if len(self.index):
            raise ValueError(f"the index must be empty, it holds {len(self.index)} vectors: open a new one")
        self.gallery: ImageSet | None = None
        #: Of which save this is, and up to which number its folder's journal is known here.
        self._lineage, self._known = "", 0

    def __repr__(self) -> str:
        fitted = "not fitted" if self.gallery is None else repr(self.gallery)
        return f"Engine({self.describer.name!r}, {self.index.spec!r}; {fitted})"

    def __len__(self) -> int:
        """Pictures that a query can find."""
        return len(self.index)

    @property
    def skipped(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self._fitted())), self.index.ids)

    def fit(self, gallery: ImageSet) -> "Engine":
        """Describe and index a gallery; the id of a picture is its row. What was fitted before is forgotten.

        Pictures that can't be read stay out of the index, after the describer's warning that counts and names them.
        An index in a server is cleared first, and keeps each picture's file name, path and label beside its vector.

        Raises
        ------
        ValueError : the gallery is empty, no picture of it can be read, or the describer gave a number that is none.
        """
        if not len(gallery):
            raise ValueError(f"the gallery {gallery.name!r} is empty: there is nothing to search")
        vectors = self.describer.describe(gallery)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        if not len(rows):
            raise ValueError(f"no picture of {gallery.name!r} can be read: there is nothing to search")
        if self.index.remote:
            # There is one place for it, so that what was there has to go first.
            self.gallery = None
            self.index.clear().add(vectors[rows], rows, _payload(gallery, rows))
        else:
            # Filled first and put in place last: after an error the engine answers as before.
            index = open_index(self.index.spec) if len(self.index) else self.index
            self.index = index.add(vectors[rows], rows)
        self.gallery, self._lineage, self._known = gallery, "", 0
        return self

    def add(self, pictures: ImageSet) -> np.ndarray:
        """Describe more pictures and put them in: int64 (m,), the ids of those that can be read, in their order.

        Ids of pictures go on from the highest ever given. Classes of the same name are one class. Pictures that
        can't be read stay out and get no id, after the describer's warning that counts and names them. A saved folder
        knows nothing of it before the next `save`; see `helpers.search.live` for what lasts at once.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : the describer gave a number that is none.
        """
        before = self._fitted()
        vectors = self.describer.describe(pictures)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        ids = np.arange(len(before), len(before) + len(rows))
        class_names = [pictures.class_name(row) if pictures.labels[row] >= 0 else None for row in rows]
        # First the gallery: a search meanwhile must never find an id without a picture.
        self.gallery = before.extended([pictures.paths[row] for row in rows], class_names)
        try:
            if self.index.remote:
                self.index.add(vectors[rows], ids, _payload(self.gallery, ids))
            else:
                self.index.add(vectors[rows], ids)
        except BaseException:
            self.gallery = before
            raise
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Take pictures out: no search finds them any more, and their ids are not given again.

        In an index that can't remove they are passed over from now on, and the next `save` builds it anew.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        KeyError : an id is not in the index; nothing is removed then.
        """
        self._fitted()
        ids = np.asarray(list(ids), np.int64)
        try:
            self.index.remove(ids)
        except UnsupportedByIndex:
            self.index = Overlay(self.index).remove(ids)

    def query(
        self,
        picture: str | Path | bytes | np.ndarray,
        k: int = 10,
        exclude: Iterable[int | str | Path] | None = None,
    ) -> Answers:
        """The ``k`` pictures that look most like one: a file, a file's bytes, or uint8 (height, width, 3) RGB.

        A picture that is itself in the gallery is its own first answer, unless it is excluded. Where ``k`` is more
        than there is, all come back, and the answers' ``note`` says so.

        exclude : ids, keys or paths of gallery pictures that must not be among the answers.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        UnreadablePicture : the picture can't be read.
        ValueError : k < 1, an array of another shape or type, or something excluded that is not in the gallery.
        """
        self._fitted()
        return self.query_vector(self.describer.describe_arrays([_pixels(picture)])[0], k, exclude)

    def query_vector(
        self, vector: np.ndarray, k: int = 10, exclude: Iterable[int | str | Path] | None = None
    ) -> Answers:
        """`query` for a vector, float (dim,), that the describer or arithmetic on its vectors gave.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : k < 1, the vector is none, or something excluded is not in the gallery.
        """
        self._fitted()
        k, dropped = check_k(k), self._ids_of(exclude)
        found = self.index.search(np.asarray(vector)[None], min(k, max(1, len(self.index))), excluded=dropped)
        answers = self.answers(found)
        return Answers(answers.answers, answers.ranking, self._note(k, len(answers), dropped))

    def query_id(self, id: int, k: int = 10, exclude: Iterable[int | str | Path] | None = None) -> Answers:
        """The pictures that look most like one of the gallery, by the vector that the index keeps; never itself.

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

    def answers(self, ranking: Ranking) -> Answers:
        """The pictures and classes of a ranking of one query (1, k).

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : the ranking is of another number of queries, or holds an id that is not in the gallery.
        """
        # Taken after the search: the gallery grows before the index does.
        gallery = self._fitted()
        if len(ranking) != 1 or ranking.ids.max(initial=PAD) >= len(gallery):
            raise ValueError(f"the ranking must be of one query and of ids below {len(gallery)}, got {ranking.ids}")
        found = ranking.ids[0] != PAD
        ranking = Ranking(ranking.ids[:, found], ranking.scores[:, found])
        return Answers(
            tuple(
                Answer(place, int(i), float(score), gallery.paths[i], int(gallery.labels[i]), gallery.class_name(i))
                for place, (i, score) in enumerate(zip(ranking.ids[0], ranking.scores[0], strict=True), start=1)
            ),
            ranking,
        )

    def query_many(self, pictures: ImageSet, k: int = 10) -> Ranking:
        """The ``k`` nearest to each picture of a set: Ranking (n, k), row by row.

        Rows are padded with -1 where ``k`` is more than there is. The row of a picture that can't be read is all
        padding, after the describer's warning.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        ValueError : k < 1.
        """
        self._fitted()
        k = check_k(k)
        vectors = self.describer.describe(pictures)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        found = self.index.search(vectors[rows], k)
        ids = np.full((len(pictures), k), PAD, np.int64)
        scores = np.full((len(pictures), k), -np.inf, found.scores.dtype)
        ids[rows], scores[rows] = found.ids, found.scores
        return Ranking(ids, scores)

    def save(self, folder: str | Path) -> Path:
        """Write a folder: the index, the pictures' paths and classes, and the describer's name; no pickle.

        Only the last step, one rename, makes the new files count: a save that is interrupted leaves the old engine.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        FileExistsError : the folder is there and holds something else than an engine.
        EngineFolderError : it was loaded from there, and other processes have changed the engine there since.
        IndexFileError : it can't be written; what was saved before is untouched.
        """
        return self._save(Path(folder), secrets.token_hex(8), 0)

    def fold(self, folder: str | Path) -> Path:
        """`save` into the folder that this engine was loaded from, so that what others change meanwhile goes on.

        The changes known here become part of the saved index; ids stay.

        Raises
        ------
        EngineFolderError : it was loaded from elsewhere, or another process has saved or folded there since.
        IndexFileError : it can't be written; all is as it was.
        """
        return self._save(Path(folder), self._lineage, self._known)

    def catch_up(self, folder: str | Path, journal: Journal) -> bool:
        """Take in what a folder's journal has got since this engine was loaded from it; whether there was anything."""
        changes = journal.read(self._lineage, self._known)
        self._take_in(changes, Path(folder))
        return bool(changes)

    def _save(self, folder: Path, lineage: str, folded: int) -> Path:
        """lineage, folded : what the card is to say, see `read_card`."""
        self._fitted()
        mark = secrets.token_hex(4)
        index, pictures = folder / f"vectors-{mark}.index", folder / f"pictures-{mark}.json"
        _make_folder(folder)
        with FileLock(folder / ".lock"):
            journal = Journal(folder)
            try:
                self._check_still_true(folder, journal, lineage)
                if isinstance(self.index, Overlay):
                    self.index = self.index.folded()
                try:
                    table = json.dumps(_table(self.gallery, folder), ensure_ascii=False).encode(
                        "utf-8", "surrogatepass"
                    )
                    self.index.save(index)
                    write_atomically(pictures, [table])
                    card = {
                        "format": FORMAT,
                        "describer": self.describer.name,
                        "fingerprint": self.describer.fingerprint,
                        "index": index.name,
                        "pictures": pictures.name,
                        "pictures_sha256": hashlib.sha256(table).hexdigest(),
                        "counts": {"pictures": len(self.gallery), "indexed": len(self.index)},
                        "lineage": lineage,
                        "folded": folded,
                    }
                    write_atomically(folder / CARD, [json.dumps(card, indent=1).encode()])
                except BaseException:
                    index.unlink(missing_ok=True)
                    pictures.unlink(missing_ok=True)
                    raise
                self._lineage, self._known = lineage, folded
                journal.drop(lineage, folded)
            finally:
                journal.close()
            # The files of the engine before, and of saves that were killed.
            for stale in {*folder.glob("vectors-*.index"), *folder.glob("pictures-*.json")} - {index, pictures}:
                stale.unlink(missing_ok=True)
        return folder

    def _check_still_true(self, folder: Path, journal: Journal, lineage: str) -> None:
        """Refuse to save where that would lose what other processes changed."""
        try:
            card = read_card(folder)
        except EngineFolderError:
            card = {"lineage": None}  # nothing there to lose
        if lineage == self._lineage:
            if card["lineage"] != lineage or card["folded"] > self._known:
                raise EngineFolderError(f"{folder} is not what this engine was loaded from any more: load it again.")
        elif card["lineage"] == self._lineage:
            unseen = len(journal.read(self._lineage, self._known))
            if unseen:
                raise EngineFolderError(
                    f"{folder} was changed {unseen} times since this engine was loaded from it, and to save it would "
                    "lose that. Load it again, or save to another folder."
                )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        describer: "Describer | UnopenedDescriber | None" = None,
        root: str | Path | None = None,
        mmap: bool = False,
    ) -> "Engine":
        """Read what `save` wrote, and take in what was added and removed since (`helpers.search.live`).

        The pictures are not looked for: a search needs their vectors only.

        Parameters
        ----------
        describer : the one it was saved with; opened by its name and default settings if left out. An
            `UnopenedDescriber` is enough to remove pictures and to save.
        root : where the pictures are now, if they were moved.
        mmap : leave the vectors on disk, see `load_index`.

        Raises
        ------
        EngineFolderError : no engine is there, a file of it is missing or damaged or of another version, or the
            describer differs.
        IndexFileError : the index in it is damaged.
        """
        folder, journal = Path(folder), Journal(folder)
        try:
            card = read_card(folder)
            engine = cls(_saved_describer(folder, card["describer"]) if describer is None else describer)
            while True:
                try:
                    engine._read(folder, card, root, mmap)
                    changes, now = journal.read(card["lineage"], card["folded"]), read_card(folder)
                except EngineFolderError:
                    now = read_card(folder)
                    if now == card:
                        raise
                if now == card:
                    break
                # Another process has just saved, and taken the old files away.
                card = now
        finally:
            journal.close()
        engine._take_in(changes, folder)
        return engine

    def _read(self, folder: Path, card: dict, root: str | Path | None, mmap: bool) -> None:
        """What a card names."""
        if self.describer.fingerprint != card["fingerprint"]:
            raise EngineFolderError(
                f"{folder} was made by {card['fingerprint']}, this describer is {self.describer.fingerprint}: their "
                "vectors can't be compared. Give the same describer with the same settings, or fit and save again."
            )
        try:
            table = (folder / card["pictures"]).read_bytes()
            index = load_index(folder / card["index"], mmap)
        except FileNotFoundError as error:
            missing = error.filename or folder / card["index"]
            raise EngineFolderError(f"{missing} is missing: {folder} is incomplete. Fit and save it again.") from error
        counts = card["counts"]
        if hashlib.sha256(table).hexdigest() != card["pictures_sha256"] or len(index) != counts["indexed"]:
            raise EngineFolderError(
                f"{folder / card['pictures']} or {card['index']} is damaged or of another save. Fit and save it again."
            )
        self.gallery, self.index = _gallery(json.loads(table), root, folder), index
        self._lineage, self._known = card["lineage"], card["folded"]

    def _take_in(self, changes: "Sequence[Change]", folder: Path) -> None:
        """Do what a journal says; the index itself stays, and an `Overlay` is put over it."""
        if not changes:
            return
        if not isinstance(self.index, Overlay):
            self.index = Overlay(self.index)
        added = [change for change in changes if change.added]
        if added:
            # Ids are rows: the journal gives none away twice, and none between.
            if [change.id for change in added] != list(range(len(self.gallery), len(self.gallery) + len(added))):
                raise EngineFolderError(
                    f"{folder / JOURNAL} does not continue the engine beside it: a file of {folder} is of another "
                    "time. Restore all of its files together, or fit and save it again."
                )
            self.gallery = self.gallery.extended(
                [_read_path(json.loads(change.path), self.gallery.root, folder) for change in added],
                [change.class_name for change in added],
            )
            self.index.add(np.stack([change.vector for change in added]), [change.id for change in added])
        gone = [change.id for change in changes if not change.added]
        if gone:
            self.index.remove(np.array(gone))
        self._known = changes[-1].number

    def _fitted(self) -> ImageSet:
        if self.gallery is None:
            raise RuntimeError("this engine has no gallery yet: call fit(gallery) first")
        return self.gallery

    def _ids_of(self, exclude) -> np.ndarray:
        """int64 (m,): the ids of gallery pictures that were given as ids, keys or paths."""
        if exclude is None:
            return np.empty(0, np.int64)
        items = [exclude] if isinstance(exclude, int | np.integer | str | Path) else list(exclude)
        gallery, rows = self.gallery, {}
        if any(isinstance(item, str | Path) for item in items):
            rows = {str(path): row for row, path in enumerate(gallery.paths)}
            rows |= {key: row for row, key in enumerate(gallery.keys)}
        ids = []
        for item in items:
            row = rows.get(str(item)) if isinstance(item, str | Path) else int(item)
            if row is None or not 0 <= row < len(gallery):
                raise ValueError(f"{item!r} can't be excluded: it is no id, key or path of {gallery.name!r}")
            ids.append(row)
        return np.unique(np.array(ids, dtype=np.int64))

    def _note(self, k: int, found: int, dropped: np.ndarray) -> str:
        if found == k:
            return ""
        less = int(np.isin(dropped, self.index.ids).sum())
        held = f"the index holds {len(self)} pictures" + (f", {less} of them excluded" if less else "")
        if found < min(k, len(self) - less):
            return (
                f"{k} answers were asked for, {self.index.spec} found {found}: {held}, but an approximate search does "
                "not reach all of them. A wider one does (the index's tune)."
            )
        return f"{k} answers were asked for, there are {found}: {held}"


def read_card(folder: str | Path) -> dict:
    """What a saved engine says of itself, as plain JSON, without opening anything else.

    ``describer``, ``fingerprint``, ``counts`` (``pictures``, ``indexed``), the names of its files, ``lineage`` (a text
    that every save draws anew, but that a fold keeps) and ``folded`` (the number of the last change of the journal that
    is in it).

    Raises
    ------
    EngineFolderError : no engine is there, or it is damaged or of another version.
    """
    file = Path(folder) / CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        version = card["format"]
        if version == FORMAT:
            missing = _NAMED - card.keys()
            if missing:
                raise KeyError(min(missing))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EngineFolderError(f"{folder} holds no engine: {file} is missing. Save one there first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EngineFolderError(f"{file} is damaged ({error}). Fit and save it again.") from error
    if version != FORMAT:
        raise EngineFolderError(f"{file} has format {version!r}; this version reads {FORMAT}. Fit and save it again.")
    return card


def _payload(gallery: ImageSet, rows: np.ndarray) -> list[Payload]:
    return [Payload(gallery.paths[row].name, str(gallery.paths[row]), gallery.labels[row]) for row in rows]


def _pixels(picture) -> np.ndarray:
    if not isinstance(picture, np.ndarray):
        return read_picture(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture must be uint8 (height, width, 3), got {picture.dtype} {picture.shape}")
    return picture


def _open_describer(name: str) -> "Describer":
    from helpers.features.describer import describer as open_describer

    return open_describer(name)


def _saved_describer(folder: Path, name: str) -> "Describer":
    try:
        return _open_describer(name)
    except KeyError as error:
        raise EngineFolderError(
            f"{folder} was made by the describer {name!r}, which is not one that can be opened by name. "
            "Give it: Engine.load(folder, describer)."
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise IndexFileError(f"{folder} can't be made or read: {error}. Choose another folder.") from error
    ours = ("vectors-", "pictures-", JOURNAL, CARD)
    if CARD not in other and any(not name.startswith(ours) for name in other):
        raise FileExistsError(f"{folder} holds something that is not an engine; choose another folder.")


def _table(gallery: ImageSet, folder: Path) -> dict:
    """The gallery as plain JSON."""
    root = gallery.root
    return {
        "name": gallery.name,
        "root": None if root is None else str(root.absolute()),
        "class_names": gallery.class_names,
        "paths": [written_path(path, root, folder) for path in gallery.paths],
        "labels": gallery.labels.tolist(),
        "groups": None if gallery.groups is None else gallery.groups.tolist(),
    }


def _gallery(table: dict, root: str | Path | None, folder: Path) -> ImageSet:
    if table["root"] is not None:
        root = Path(table["root"] if root is None else root).absolute()
    elif root is not None:
        raise ValueError(f"{table['name']!r} was saved without a root, by full paths: it can't be given another")
    paths = tuple(_read_path(path, root, folder) for path in table["paths"])
    return ImageSet(table["name"], paths, table["labels"], tuple(table["class_names"]), table["groups"], root)


def written_path(path: Path, root: Path | None, folder: Path) -> str | dict[str, str]:
    """How a path is written in an engine's folder, as plain JSON.

    In the folder itself: ``{"own": …}``, so that it can be moved as a whole; below the gallery's root: from there on;
    others in full.
    """
    path, folder = path.absolute(), folder.absolute()
    if path.is_relative_to(folder):
        return {"own": path.relative_to(folder).as_posix()}
    if root is not None and path.is_relative_to(root.absolute()):
        return path.relative_to(root.absolute()).as_posix()
    return path.as_posix()


def _read_path(written: str | dict[str, str], root: Path | None, folder: Path) -> Path:
    if isinstance(written, dict):
        return folder.absolute() / written["own"]
    return Path(written) if root is None else root / written
