"""Engine: a describer and an index, fitted on a gallery, that answers with pictures."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.pictures.imageset import ImageSet
from helpers.pictures.reading import read_picture
from helpers.search.index import Index, load_index, open_index
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    from helpers.features.describer import Describer

#: The layout of saved folders; a reader refuses any other.
FORMAT = 1


class EngineFolderError(OSError):
    """A folder that should hold an engine and does not, or holds one of another describer."""


@dataclass(frozen=True)
class Answer:
    """One answer: its place (1 is best), id, score (higher is better), file and class ("–" for none)."""

    rank: int
    id: int
    score: float
    path: Path
    class_name: str


@dataclass(frozen=True)
class Answers(Sequence):
    """The answers to one query, best first; ``ranking`` is the same as ids and scores."""

    answers: tuple[Answer, ...]
    ranking: Ranking

    def __getitem__(self, place):
        return self.answers[place]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)


class Engine:
    """A search engine for pictures.

    Parameters
    ----------
    describer : a `Describer`, or its name.
    index : an empty `Index`, or its name.

    >>> engine = Engine("resnet50", "exact:cosine").fit(gallery)     # doctest: +SKIP
    >>> engine.query("holiday.jpg", k=10)[0].path                    # doctest: +SKIP
    """

    def __init__(self, describer: "Describer | str", index: Index | str = "exact:cosine"):
        if isinstance(describer, str):
            from helpers.features.describer import describer as open_describer

            describer = open_describer(describer)
        self.describer = describer
        self.index = open_index(index) if isinstance(index, str) else index
        self.gallery: ImageSet | None = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self.gallery is None else repr(self.gallery)
        return f"Engine({self.describer.name!r}, {self.index.spec!r}; {fitted})"

    def fit(self, gallery: ImageSet) -> "Engine":
        """Describe and index a gallery; the id of a picture is its row. What was fitted before is forgotten.

        Pictures that can't be read stay out of the index, after one warning that counts and names them.

        Raises
        ------
        ValueError : the gallery is empty, or no picture of it can be read.
        """
        if not len(gallery):
            raise ValueError(f"the gallery {gallery.name!r} is empty: there is nothing to search")
        vectors = self.describer.describe(gallery)
        rows = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        if not len(rows):
            raise ValueError(f"no picture of {gallery.name!r} can be read: there is nothing to search")
        self.index = open_index(self.index.spec).add(vectors[rows], rows)
        self.gallery = gallery
        return self

    def query(self, picture: str | Path | bytes | np.ndarray, k: int = 10) -> Answers:
        """The ``k`` pictures that look most like one: a file, a file's bytes, or uint8 (height, width, 3) RGB.

        A picture that is itself in the gallery is its own first answer. There are at most as many answers as pictures.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        UnreadablePicture : the picture can't be read.
        ValueError : k < 1, or an array of another shape or type.
        """
        gallery = self._fitted()
        if not isinstance(picture, np.ndarray):
            picture = read_picture(picture)
        elif picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"a picture must be uint8 (height, width, 3), got {picture.dtype} {picture.shape}")
        ranking = self.index.search(self.describer.describe_arrays([picture]), k)
        answers = tuple(
            Answer(place, int(id_), float(score), gallery.paths[id_], gallery.class_name(id_))
            for place, (id_, score) in enumerate(zip(ranking.ids[0], ranking.scores[0], strict=True), start=1)
            if id_ != PAD
        )
        return Answers(answers, ranking)

    def query_many(self, pictures: ImageSet, k: int = 10) -> Ranking:
        """The ``k`` nearest to each picture of a set: Ranking (n, k).

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        UnreadablePicture : a picture can't be read.
        """
        self._fitted()
        return self.index.search(self.describer.describe(pictures, strict=True), k)

    def save(self, folder: str | Path) -> Path:
        """Write a folder: the index, the pictures' paths and classes, and the describer's name; no pickle.

        A complete new folder takes the place of an older one at the end, so an interrupted save leaves that usable.

        Raises
        ------
        RuntimeError : nothing was fitted yet.
        FileExistsError : the folder is there and holds something else than an engine.
        IndexFileError : it can't be written.
        """
        gallery, folder = self._fitted(), Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "engine.json").is_file():
            raise FileExistsError(f"{folder} holds something that is not an engine; choose another folder.")
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        try:
            fresh.mkdir(parents=True)
            self.index.save(fresh / "vectors.index")
            (fresh / "engine.json").write_text(json.dumps(self._card(gallery), indent=1), encoding="utf-8")
            if folder.exists():
                folder.replace(old)
            fresh.replace(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def _card(self, gallery: ImageSet) -> dict:
        return {
            "format": FORMAT,
            "describer": self.describer.name,
            "fingerprint": self.describer.fingerprint,
            "gallery": gallery.name,
            "root": None if gallery.root is None else str(gallery.root),
            "class_names": gallery.class_names,
            "labels": gallery.labels.tolist(),
            "keys": gallery.keys,
        }

    @classmethod
    def load(cls, folder: str | Path, describer: "Describer | None" = None, root: str | Path | None = None) -> "Engine":
        """Read what `save` wrote.

        Parameters
        ----------
        describer : the one it was saved with; opened by its name and default settings if left out.
        root : where the pictures are now, if they were moved.

        Raises
        ------
        EngineFolderError : no engine is there, it is damaged or of another version, or the describer differs.
        IndexFileError : the index in it is damaged.
        """
        folder = Path(folder)
        remedy = "Fit and save it again."
        try:
            card = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise EngineFolderError(f"{folder} holds no engine: engine.json is missing.") from error
        except ValueError as error:
            raise EngineFolderError(f"{folder / 'engine.json'} is damaged ({error}). {remedy}") from error
        if card.get("format") != FORMAT:
            raise EngineFolderError(f"{folder} has format {card.get('format')!r}; this version reads {FORMAT}. {remedy}")
        engine = cls(describer or card["describer"])
        if engine.describer.fingerprint != card["fingerprint"]:
            raise EngineFolderError(
                f"{folder} was made by {card['fingerprint']}, this describer is {engine.describer.fingerprint}: their "
                "vectors can't be compared. Give the same describer with the same settings."
            )
        engine.index = load_index(folder / "vectors.index")
        base = Path(root or card["root"] or "")
        paths = tuple(base / key for key in card["keys"])
        inside = bool(root or card["root"])
        engine.gallery = ImageSet(
            card["gallery"], paths, np.array(card["labels"], np.int64), tuple(card["class_names"]), root=base if inside else None
        )
        return engine

    def _fitted(self) -> ImageSet:
        if self.gallery is None:
            raise RuntimeError("this engine has no gallery yet: call fit(gallery) first")
        return self.gallery
