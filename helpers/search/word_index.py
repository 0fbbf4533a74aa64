"""The images of an engine in a space of words, so that a text finds them.

`WordIndex` is for saved engines with stored class scores, `GalleryWords` for class scores in memory.
"""

import shlex
import threading
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.features.word_space import Conse
from helpers.search.backends.exact import ExactIndex
from helpers.search.engine import Engine
from helpers.search.index import IdSet
from helpers.search.persist import class_scores
from helpers.search.persist.content_table import StoredSource, images_by_content
from helpers.search.persist.engine_file import EngineFile
from helpers.text import printable

#: Images whose scores are converted, or computed and written, at a time.
_STEP = 4096
_WRITTEN = 512
#: The end of the names of classifiers, after the network's name.
CLASSES = "-classes"


class EmbedsText(Protocol):
    """A space of vectors for texts."""

    def embed_text(self, text: str) -> np.ndarray:
        """A text → float32 (dim,). Raises ValueError: it has no known word."""


class TextSpace(EmbedsText, Protocol):
    """A space of vectors for texts and for images, such as `helpers.features.word_space.Conse`."""

    def embed_images(self, inputs: np.ndarray, /) -> np.ndarray:
        """Class scores (n, 1000), or feature vectors (n, m) → float32 (n, dim)."""


class NoClassScores(ValueError):
    """An engine has no class scores, so words cannot find its images."""


class GalleryWords:
    """The vectors of a gallery's images in a text space, by id, from class scores or feature vectors in memory.

    space : the text space. inputs : float32 (n, m), what it embeds, such as class scores (n, 1000). Images that cannot
        be read have rows of NaN; texts do not find them.
    ids : int64 (n,), of the images, ascending; by default 0 … n - 1.
    """

    def __init__(self, space: TextSpace, inputs: np.ndarray, ids: np.ndarray | None = None):
        rows = np.flatnonzero(~np.isnan(inputs).any(axis=1))
        vectors = space.embed_images(inputs[rows]) if len(rows) else np.empty((0, 1), np.float32)
        self._set(space, vectors, rows if ids is None else ids[rows])

    @classmethod
    def of_vectors(cls, space: "EmbedsText", vectors: np.ndarray, ids: np.ndarray) -> Self:
        """Images whose vectors in the text space are known: float32 (n, dim), with ids int64 (n,), ascending."""
        words = cls.__new__(cls)
        words._set(space, vectors, ids)
        return words

    def _set(self, space: "EmbedsText", vectors: np.ndarray, ids: np.ndarray) -> None:
        self._space, self._index = space, ExactIndex("cosine")
        if len(ids):
            self._index.add(vectors, ids)

    def embed_text(self, text: str) -> np.ndarray:
        """The vector of a text, float32 (dim,). Raises ValueError: it has no known word."""
        return self._space.embed_text(text)

    def of(self, engine: Engine) -> tuple[ExactIndex, IdSet | None]:
        """The index of word vectors, and its ids that the engine's searches must not find.

        engine : fitted to the gallery.
        """
        ids = self._index.ids
        gone = ids[~engine.index.contains(ids)]
        return self._index, IdSet(gone) if len(gone) else None


class WordIndex(GalleryWords):
    """The vectors of a saved engine's images in a text space, by id, from their stored class scores.

    Methods may be called from several threads. Other processes may add images and scores meanwhile.

    folder : of the engine. space : the text space.

    Raises NoClassScores: no class scores are stored.
    """

    _space: Conse

    def __init__(self, folder: str | Path, space: Conse):
        self._set(space, np.empty((0, 1), np.float32), np.empty(0, np.int64))
        self._file = EngineFile(folder)
        self._lock, self._classifying = threading.Lock(), threading.Lock()
        self._classifier: FeatureExtractor | None = None
        self._version = -1
        self._last = 0
        #: What computed the scores that were read.
        self._source: StoredSource | None = None
        self._snapshot = ""
        #: Identity of a content → its vector.
        self._vectors: dict[bytes, np.ndarray] = {}
        #: Ids below this number are in the index, or in ``_waiting``.
        self._seen = 0
        #: Content → ids of the images that have no vector; None for images whose content is not known.
        self._waiting: dict[bytes | None, list[int]] = {}
        #: What the latest results of `of` were made of, and the results.
        self._latest: tuple[tuple[object, ...], tuple[ExactIndex, IdSet | None]] | None = None
        stored_classifier(folder)

    def close(self) -> None:
        """Close the engine's file; the next use opens it again."""
        with self._lock:
            self._file.close()

    def of(self, engine: Engine) -> tuple[ExactIndex, IdSet | None]:
        """As `GalleryWords.of`; ``engine`` is the present one of the folder, see `LiveEngine.engine`.

        The index that this returns does not change.
        """
        with self._lock:
            self._read()
            self._extend(engine)
            state = engine.index, self._index
            if self._latest is None or self._latest[0] != state:
                self._latest = state, super().of(engine)
            return self._latest[1]

    def missing(self, engine: Engine) -> np.ndarray:
        """int64 (m,): the ids of images without class scores, which words do not find."""
        with self._lock:
            self._read()
            self._extend(engine)
            ids = np.sort(np.array([id for waiting in self._waiting.values() for id in waiting], np.int64))
            return ids[engine.index.contains(ids)]

    def classify_missing(self, engine: Engine) -> int:
        """Compute and store the class scores of images that have none; returns the number of these images.

        Raises NoClassScores: the stored scores are of another version of the classifier. Raises `WeightsUnavailable`.
        """
        ids = self.missing(engine)
        if not len(ids):
            return 0
        stored = stored_classifier(self._file.folder)
        with self._classifying:
            if self._classifier is None or self._classifier.fingerprint != stored.fingerprint:
                self._classifier = matching_classifier(self._file.folder, stored)
            classify(self._file.folder, engine, self._classifier, ids=ids.tolist())
        return len(ids)

    def _read(self) -> None:
        """Convert the scores that were stored since the last call, and index the images that waited for them."""
        version = self._file.version()
        if version == self._version:
            return
        with self._file.reading() as connection:
            source = class_scores.TABLE.source_of(connection)
            if source is None or self._source is None or source.fingerprint != self._source.fingerprint:
                # Scores of two classifiers cannot be compared.
                self._vectors, self._last = {}, 0
                self._restart()
            contents, classes, probabilities, self._last = class_scores.read(connection, self._last)
        for start in range(0, len(contents), _STEP):
            rows = slice(start, start + _STEP)
            vectors = self._space.embed_likeliest(classes[rows], probabilities[rows])
            self._vectors.update(zip(contents[rows], vectors, strict=True))
        self._source, self._version = source, version
        self._add({content: waiting for content in contents if (waiting := self._waiting.pop(content, None))})

    def _extend(self, engine: Engine) -> None:
        """Add the rows of the engine's table that are new since the last call."""
        if engine.saved.snapshot_id != self._snapshot:
            # Another save may have given the ids to other images.
            self._restart()
            self._snapshot = engine.saved.snapshot_id
        table = engine.table
        new: dict[bytes, list[int]] = {}
        for id in range(self._seen, len(table)):
            content = table.content(id)
            if content is not None and content in self._vectors:
                new.setdefault(content, []).append(id)
            else:
                self._waiting.setdefault(content, []).append(id)
        self._seen = max(self._seen, len(table))
        self._add(new)

    def _restart(self) -> None:
        """Forget which images are indexed."""
        self._index, self._seen, self._waiting = ExactIndex("cosine"), 0, {}

    def _add(self, images: dict[bytes, list[int]]) -> None:
        """Index images whose vectors are known. images : content → ids."""
        vectors = {id: self._vectors[content] for content, ids in images.items() for id in ids}
        if vectors:
            ids = sorted(vectors)
            # Another index: a search in another thread may still use the former one.
            self._index = self._index.extended(np.stack([vectors[id] for id in ids]), np.array(ids, np.int64))


def classify(
    folder: str | Path, engine: Engine, classifier: FeatureExtractor, progress: Callable[[int], object] | None = None,
    ids: Sequence[int] | None = None,
) -> int:  # fmt: skip
    """Compute and store the class scores of an engine's images; returns the number of images that cannot be read.

    Scores that are stored already, by the same classifier, are kept. An interrupted call continues where it
    stopped. Images that cannot be read get no scores; the extractor's warning names them.

    classifier : `helpers.features.deep.ClassScores`. progress : called with the number of images after each step.
    ids : of the images, by default of all.
    """
    table, source = engine.table, StoredSource(classifier.name, classifier.fingerprint)
    images = images_by_content(table, engine.index.ids.tolist() if ids is None else list(ids))

    def compute(part: list[int]) -> list[tuple]:
        scores = classifier.extract(engine.table.subset(np.array(part)), progress=False)
        readable = ~np.isnan(scores).any(axis=1)
        return class_scores.rows_of([table.content(id) for id in compress(part, readable)], scores[readable])

    with EngineFile(folder) as file:
        return class_scores.TABLE.compute_missing(file, source, images, compute, _WRITTEN, progress)[1]


def stored_classifier(folder: str | Path) -> StoredSource:
    """The classifier of a saved engine's class scores. Raises NoClassScores: none are stored."""
    classifier = class_scores.TABLE.source_in(folder)
    if classifier is None:
        raise NoClassScores(
            f"{printable(folder)} has no class scores, so words cannot find its images. "
            f"Add them: lookalike classify -e {shlex.quote(str(folder))}"
        )
    return classifier


def matching_classifier(folder: str | Path, stored: StoredSource) -> FeatureExtractor:
    """The extractor of an engine's class scores.

    Raises NoClassScores: the scores are of another version of it. Raises `WeightsUnavailable`.
    """
    from helpers.features.deep import ClassScores

    classifier = ClassScores(stored.name.removesuffix(CLASSES))
    if classifier.fingerprint != stored.fingerprint:
        raise NoClassScores(
            f"The class scores of {printable(folder)} are of another version of {stored.name}. "
            f"Compute them again: lookalike classify -e {shlex.quote(str(folder))}"
        )
    return classifier
