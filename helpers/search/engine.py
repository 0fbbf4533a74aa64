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
from helpers.search.index import Index, IndexFileError, check_k, load_index, open_index, write_atomically
from helpers.search.ranking import PAD, Ranking
from helpers.search.remote import Payload

if TYPE_CHECKING:
    from helpers.features.describer import Describer

#: The layout of saved folders; a reader refuses any other.
FORMAT = 1

_CARD = "engine.json"


class EngineFolderError(IndexFileError):
    """A folder that should hold an engine and does not, or one of another describer; the message says which."""


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
    skipped : int64 (m,): ids of the gallery's pictures that could not be read, and that no search finds.

    >>> engine = Engine("resnet50", "exact:cosine").fit(gallery)     # doctest: +SKIP
    >>> engine.query("holiday.jpg", k=10)[0].path                    # doctest: +SKIP
    """

    def __init__(self, describer: "Describer | str", index: Index | str = "exact:cosine"):
        self.describer = _open_describer(describer) if isinstance(describer, str) else describer
        self.index = open_index(index) if isinstance(index, str) else index
        if len(self.index):
            raise ValueError(f"the index must be empty, it holds {len(self.index)} vectors: open a new one")
        self.gallery: ImageSet | None = None

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
        self.gallery = gallery
        return self

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
        gallery, k = self._fitted(), check_k(k)
        dropped = self._ids_of(exclude)
        vector = self.describer.describe_arrays([_pixels(picture)])
        found = self.index.search(vector, min(k + len(dropped), len(self.index)))
        kept = np.flatnonzero(~np.isin(found.ids[0], dropped) & (found.ids[0] != PAD))[:k]
        ranking = Ranking(found.ids[:, kept], found.scores[:, kept])
        answers = tuple(
            Answer(place, int(i), float(score), gallery.paths[i], int(gallery.labels[i]), gallery.class_name(i))
            for place, (i, score) in enumerate(zip(ranking.ids[0], ranking.scores[0], strict=True), start=1)
        )
        return Answers(answers, ranking, self._note(k, len(answers), dropped))

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
        IndexFileError : it can't be written; what was saved before is untouched.
        """
        gallery, folder = self._fitted(), Path(folder)
        mark = secrets.token_hex(4)
        index, pictures = folder / f"vectors-{mark}.index", folder / f"pictures-{mark}.json"
        _make_folder(folder)
        with FileLock(folder / ".lock"):
            try:
                table = json.dumps(_table(gallery), ensure_ascii=False).encode()
                self.index.save(index)
                write_atomically(pictures, [table])
                card = {
                    "format": FORMAT,
                    "describer": self.describer.name,
                    "fingerprint": self.describer.fingerprint,
                    "index": index.name,
                    "pictures": pictures.name,
                    "pictures_sha256": hashlib.sha256(table).hexdigest(),
                    "counts": {"pictures": len(gallery), "indexed": len(self.index)},
                }
                write_atomically(folder / _CARD, [json.dumps(card, indent=1).encode()])
            except BaseException:
                index.unlink(missing_ok=True)
                pictures.unlink(missing_ok=True)
                raise
            # The files of the engine before, and of saves that were killed.
            for stale in {*folder.glob("vectors-*.index"), *folder.glob("pictures-*.json")} - {index, pictures}:
                stale.unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path, describer: "Describer | None" = None, root: str | Path | None = None) -> "Engine":
        """Read what `save` wrote. The pictures are not looked for: a search needs their vectors only.

        Parameters
        ----------
        describer : the one it was saved with; opened by its name and default settings if left out.
        root : where the pictures are now, if they were moved.

        Raises
        ------
        EngineFolderError : no engine is there, a file of it is missing or damaged or of another version, or the
            describer differs.
        IndexFileError : the index in it is damaged.
        """
        folder = Path(folder)
        card = _read_card(folder)
        engine = cls(_saved_describer(folder, card["describer"]) if describer is None else describer)
        if engine.describer.fingerprint != card["fingerprint"]:
            raise EngineFolderError(
                f"{folder} was made by {card['fingerprint']}, this describer is {engine.describer.fingerprint}: their "
                "vectors can't be compared. Give the same describer with the same settings, or fit and save again."
            )
        try:
            table = (folder / card["pictures"]).read_bytes()
            engine.index = load_index(folder / card["index"])
        except FileNotFoundError as error:
            missing = error.filename or folder / card["index"]
            raise EngineFolderError(f"{missing} is missing: {folder} is incomplete. Fit and save it again.") from error
        counts = card["counts"]
        if hashlib.sha256(table).hexdigest() != card["pictures_sha256"] or len(engine.index) != counts["indexed"]:
            raise EngineFolderError(
                f"{folder / card['pictures']} or {card['index']} is damaged or of another save. Fit and save it again."
            )
        engine.gallery = _gallery(json.loads(table), root)
        return engine

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
    ours = ("vectors-", "pictures-", _CARD)
    if _CARD not in other and any(not name.startswith(ours) for name in other):
        raise FileExistsError(f"{folder} holds something that is not an engine; choose another folder.")


def _read_card(folder: Path) -> dict:
    file = folder / _CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        version = card["format"]
        if version == FORMAT:
            missing = {"describer", "fingerprint", "index", "pictures", "pictures_sha256", "counts"} - card.keys()
            if missing:
                raise KeyError(min(missing))
    except FileNotFoundError as error:
        raise EngineFolderError(f"{folder} holds no engine: {file} is missing. Save one there first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EngineFolderError(f"{file} is damaged ({error}). Fit and save it again.") from error
    if version != FORMAT:
        raise EngineFolderError(f"{file} has format {version!r}; this version reads {FORMAT}. Fit and save it again.")
    return card


def _table(gallery: ImageSet) -> dict:
    """The gallery as plain JSON: paths below its root by their keys, others in full."""
    root = gallery.root
    return {
        "name": gallery.name,
        "root": None if root is None else str(root.absolute()),
        "class_names": gallery.class_names,
        "paths": gallery.keys if root is not None else [path.absolute().as_posix() for path in gallery.paths],
        "labels": gallery.labels.tolist(),
        "groups": None if gallery.groups is None else gallery.groups.tolist(),
    }


def _gallery(table: dict, root: str | Path | None) -> ImageSet:
    if table["root"] is not None:
        root = Path(table["root"] if root is None else root).absolute()
    elif root is not None:
        raise ValueError(f"{table['name']!r} was saved without a root, by full paths: it can't be given another")
    paths = tuple(Path(path) if root is None else root / path for path in table["paths"])
    return ImageSet(table["name"], paths, table["labels"], tuple(table["class_names"]), table["groups"], root)
