"""The query picker's history: its queries with their marks, and the uploads that they need."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from helpers.features.region_vectors import Crop, crop

#: Queries that are kept.
MAX_STEPS = 50
#: Uploads that are kept: their number and their bytes. The oldest are removed first.
MAX_UPLOADS, MAX_UPLOAD_BYTES = 30, 64 * 2**20


class Box(NamedTuple):
    """A part of an image: x, y, width, height in pixels, and its place in the image in fractions."""

    x: float
    y: float
    width: float
    height: float
    place: Crop

    @classmethod
    def of(cls, numbers: np.ndarray, pixels: np.ndarray) -> Self:
        """A box (4,) that is inside an image, uint8 (height, width, 3)."""
        height, width = pixels.shape[:2]
        x, y, w, h = np.asarray(numbers, np.float64).tolist()
        return cls(x, y, w, h, Crop(x / width, y / height, w / width, h / height))

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The part of the whole image, uint8 (height, width, 3)."""
        return crop(pixels, self[:4])


@dataclass(frozen=True)
class Query:
    """A query: an image, a text, or both, and further images.

    name : of the image; empty without one.
    row, path, upload : where the image is: a row of the set, another file, or the SHA-256 of an upload.
    crop : the part of the image that is the query.
    boxes : objects of the image that are the query; then there is no crop.
    text : what results show; words with a hyphen in front are what they do not show, see `parse_text`.
    more : rows of further images.
    weights : of the images and texts in their order, see `helpers.picker.parts.weights_of`. Empty for the default
        weights: -1 for words with a hyphen, and 1 for everything else.
    given_class : the class that the user gave an image that is not in the set; None for none.
    """

    name: str = ""
    row: int | None = None
    path: Path | None = None
    upload: str | None = None
    crop: Crop | None = None
    text: str = ""
    more: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    given_class: str | None = None

    @property
    def image(self) -> str:
        """A key for the whole image, the same for all crops of it; empty without an image."""
        if self.row is not None:
            return f"row-{self.row}"
        return f"file-{self.path or self.upload}" if self.path or self.upload else ""

    @property
    def is_combined(self) -> bool:
        """Whether it is more than one image."""
        return bool(self.text or self.more)


@dataclass
class Step:
    """One entry of the history: a query, its marks (id → good), and the marks that its results use.

    A change replaces the marks and leaves the former dictionary as it is, because a snapshot may contain it.
    """

    query: Query
    marks: dict[int, bool] = field(default_factory=dict)
    applied: dict[int, bool] = field(default_factory=dict)


#: What `History.restore` needs: the position, and each step with its marks and applied marks.
Snapshot = tuple[int, list[tuple[Step, dict[int, bool], dict[int, bool]]]]


class History:
    """The queries in their order, and the content of uploaded images.

    Attributes
    ----------
    steps, position : the entries and the index of the current one; -1 while there is none.
    uploads : SHA-256 → bytes of a file.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.position = -1
        self.uploads: dict[str, bytes] = {}

    @property
    def step(self) -> Step | None:
        """The current entry."""
        return self.steps[self.position] if self.steps else None

    def add(self, query: Query) -> None:
        """Put a query behind the current one and remove all later ones; the current query again changes nothing."""
        if self.step is None or query != self.step.query:
            self.steps = [*self.steps[: self.position + 1], Step(query)][-MAX_STEPS:]
            self.position = len(self.steps) - 1
        self._remove_uploads()

    def snapshot(self) -> Snapshot:
        """The steps as they are now."""
        return self.position, [(step, step.marks, step.applied) for step in self.steps]

    def restore(self, before: Snapshot) -> None:
        """Go back to a snapshot, without queries whose upload was removed."""
        position, steps = before
        for step, marks, applied in steps:
            step.marks, step.applied = marks, applied
        self.steps = [step for step, *_ in steps if step.query.upload is None or step.query.upload in self.uploads]
        current = (row for row, step in enumerate(self.steps) if step is steps[position][0])
        self.position = next(current, len(self.steps) - 1)
        self._remove_uploads()

    def add_upload(self, name: str, content: bytes) -> None:
        """Put an uploaded image behind the current query."""
        digest = hashlib.sha256(content).hexdigest()
        # An image that is uploaded again becomes the newest.
        self.uploads[digest] = self.uploads.pop(digest, content)
        self.add(Query(name, upload=digest))

    def _remove_uploads(self) -> None:
        """Remove uploads without a query, and the oldest ones beyond the limits together with their queries."""
        current = self.step
        used = {step.query.upload for step in self.steps}
        self.uploads = {digest: content for digest, content in self.uploads.items() if digest in used}
        while len(self.uploads) > MAX_UPLOADS or sum(map(len, self.uploads.values())) > MAX_UPLOAD_BYTES:
            oldest = next(digest for digest in self.uploads if current is None or digest != current.query.upload)
            del self.uploads[oldest]
            self.steps = [step for step in self.steps if step.query.upload != oldest]
            self.position = next(row for row, step in enumerate(self.steps) if step is current)
