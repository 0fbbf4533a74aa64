"""The query picker's state: the query, the methods and the results, in plain Python without a browser.

`helpers.picker.view` shows it. Each user action is a method. An invalid action, such as an unreadable upload, sets
`Picker.message` and raises nothing. `Picker.search`, `Picker.why` and `Picker.set_text` are slow: another thread can
run them, and the other actions do not wait for them.
"""

import contextlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Concatenate, NamedTuple, ParamSpec

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.features.explain import Explanation
from helpers.features.extractor import FeatureExtractor
from helpers.features.regions import check_box
from helpers.features.text import TextError
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.reading import UnreadableImage, read_image
from helpers.picker.history import Box, Crop, History, Query, Snapshot, Step
from helpers.picker.parts import (
    MAX_PARTS,
    MAX_WEIGHT,
    ShownPart,
    images_of,
    parts_of,
    texts_of,
    title_of,
    weights_of,
    with_image,
    with_text,
    with_weights,
    without_part,
)
from helpers.picker.search import NAMES, Boxes, Method, QueryImage, Searcher, SearchError
from helpers.search.combined import parse_text
from helpers.search.region_search import GalleryRegions
from helpers.text import pluralize, printable, printable_lines

#: The name of "no class" for `Picker.filter`; `ImageSet.class_name` uses the same.
NO_CLASS_NAME = "–"
#: The largest k.
MAX_K = 100
#: The largest upload in bytes.
MAX_UPLOAD = 32 * 2**20
#: Action → what `Picker.undo` calls it. Other changes of the query are undone by `Picker.back`.
UNDOABLE = {
    "add": "adding an image", "remove_part": "removing a part", "set_weight": "changing a weight",
    "mark": "a mark", "search_again": "the search with marks", "forget_marks": "forgetting marks",
}  # fmt: skip
#: Action → names of its arguments, whose values come from the page. `_action` adds the methods that it decorates.
ACTIONS: dict[str, tuple[str, ...]] = {"paste": ("content",)}
#: Actions that take a while.
SLOW = {"find_objects", "search", "set_text", "why"}
#: Scores that differ less are the same, up to the rounding of a network.
_SAME_SCORE = 5e-4
#: Actions that can be undone.
MAX_UNDO = 50
#: The shortest side of a crop, as a fraction of the image's side.
MIN_CROP = 0.02

P = ParamSpec("P")


class InvalidAction(ValueError):
    """A user action that is not possible; the message gives the reason."""


@dataclass(frozen=True)
class ShownResult:
    """One result on the page; ``relevant`` is None if that is unknown."""

    rank: int
    id: int
    score: float
    class_name: str
    key: str
    relevant: bool | None
    boxes: Boxes


@dataclass(frozen=True)
class Column:
    """The results of one method; ``note`` explains missing or meaningless results."""

    method: Method
    results: tuple[ShownResult, ...]
    note: str
    seconds: float


@dataclass(frozen=True, eq=False)
class ShownExplanation:
    """Why a result is similar to the query: its id and column, the maps, and a number that grows with each one.

    note : why the similarity is not the score of the result; empty if it is.
    """

    id: int
    column: int
    why: Explanation
    number: int
    note: str = ""


class ShownObject(NamedTuple):
    """A detected object in the image of a query; `Picker.choose_boxes` searches with its box."""

    box: Box
    class_name: str
    score: float


class Message(NamedTuple):
    """A message to the user; ``kind`` is ``"error"`` or ``"note"``."""

    kind: str
    text: str


class _Request(NamedTuple):
    """Everything that the results depend on."""

    query: Query
    methods: tuple[Method, ...]
    k: int
    applied: tuple[tuple[int, bool], ...]
    class_name: str | None


def _action(method: Callable[Concatenate["Picker", P], None]) -> Callable[Concatenate["Picker", P], "Picker"]:
    """A user action: turns errors that a user can cause into a message, and returns the picker for chaining.

    It holds the lock. A slow action runs without it, but alone.
    """
    is_slow = method.__name__ in SLOW
    ACTIONS[method.__name__] = tuple(inspect.signature(method).parameters)[1:]

    @wraps(method)
    def act(self: "Picker", *args: P.args, **kwargs: P.kwargs) -> "Picker":
        with self._searching if is_slow else self.lock:
            before = self.history.snapshot()
            if not is_slow:
                self.message = None
            try:
                method(self, *args, **kwargs)
            except (InvalidAction, SearchError, UnreadableImage) as error:
                self.message = Message("error", str(error))
            finally:
                if is_slow:
                    self.progress = ""
            # Make a change of the query or its marks undoable.
            if method.__name__ in UNDOABLE and before != self.history.snapshot():
                self._undo = [*self._undo, (method.__name__, before, list(self.history.steps))][-MAX_UNDO:]
        self._notify()
        return self

    return act


class Picker:
    """A query and its results, and the user actions that change them.

    Parameters
    ----------
    images : the set to search; an image's id is its row.
    extractors : names of extractors, or extractors. indexes : specs for `open_index`. The first of each is selected.
    protocol : queries, gallery, relevance and ignored images, bound to ``images`` (`Protocol.bind`). By default all
        images are the gallery, copies of the query (``images.groups``) are ignored, and images of the query's class are
        relevant.
    regions : of the images for the first extractor, by their rows, or a dictionary for several extractors. A query of
        one image, or of chosen boxes, is then compared with the regions, see `search_regions`.
    k : results per query. per_page : thumbnails per page. seed : for `random`.

    Attributes
    ----------
    method, other : the first and the second method; ``other`` is None without comparison.
    history : the queries so far.
    page, class_name : which thumbnails are shown; ``class_name`` is None for all classes.
    message : an error or a note, or None. progress : the slow step that is running, or empty.
    listeners : called without arguments after every change. lock : held during a change. Hold it to read several
        attributes that must be consistent.

    >>> picker = Picker(images, ["resnet50", "hsv-histogram"]).choose(5).search()     # doctest: +SKIP
    >>> picker.columns[0].results[0].key                                              # doctest: +SKIP
    """

    def __init__(
        self,
        images: ImageSet,
        extractors: Sequence[str | FeatureExtractor],
        indexes: Sequence[str] = ("exact:cosine", "exact:euclidean", "exact:manhattan"),
        protocol: Protocol | None = None,
        k: int = 10,
        per_page: int = 24,
        seed: int = 0,
        regions: GalleryRegions | Mapping[str, GalleryRegions] | None = None,
    ):
        if protocol is not None and protocol.keys != images.keys:
            raise ValueError(
                f"{protocol.name} is a protocol of other images than {images.name!r}: pass the result of protocol.bind"
            )
        if per_page < 1:
            raise ValueError(f"per_page must be at least 1, got {per_page}")
        self.images, self.protocol, self.per_page = images, protocol, per_page
        self._searcher = Searcher(images, extractors, indexes, protocol, self._report, regions)
        self.extractors, self.indexes, self.rerankers = self._searcher.extractors, self._searcher.indexes, NAMES
        self.method = Method(self.extractors[0], self.indexes[0])
        self.other: Method | None = None
        self.history = History()
        self.page = 0
        self.class_name: str | None = None
        self.message: Message | None = None
        self.progress = ""
        self.listeners: list[Callable[[], object]] = []
        self._random = np.random.default_rng(seed)
        self.lock = RLock()
        # One search at a time, so that a network is loaded once.
        self._searching = RLock()
        self._searched: tuple[_Request, tuple[Column, ...]] | None = None
        self._explained: tuple[_Request, ShownExplanation] | None = None
        self._explanations = 0
        #: What `undo` goes back to: the name of the action, the history before it, and the steps after it.
        self._undo: list[tuple[str, Snapshot, list[Step]]] = []
        #: `Query.image` → its objects, for the images of the history.
        self._objects: dict[str, tuple[ShownObject, ...]] = {}
        self.k = 1
        self.set_k(k)

    def __repr__(self) -> str:
        query = f"query {printable(self.title)}" if self.query else "no query yet"
        methods = " | ".join(map(str, self.methods))
        return f"Picker({self.images.name!r}: {len(self.images)} images, {query}, {methods}, k {self.k})"

    # ---- what the page shows ---------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The largest k for this gallery."""
        return min(MAX_K, len(self._searcher))

    @property
    def step(self) -> Step | None:
        """The current entry of the history."""
        return self.history.step

    @property
    def query(self) -> Query | None:
        """The current query."""
        return self.step.query if self.step else None

    @property
    def title(self) -> str:
        """The current query as text, such as ``boat.jpg + "at night" − "people"``; empty without one."""
        return "" if self.query is None else title_of(self.query, self.images.keys)

    @property
    def parts(self) -> list[ShownPart]:
        """The images and texts of the current query; `set_weight` changes one, `remove_part` removes one."""
        return [] if self.query is None else parts_of(self.query, self.images.keys)

    @property
    def objects(self) -> tuple[ShownObject, ...] | None:
        """What `find_objects` found in the image of the query, the best scores first; None before it."""
        return None if self.query is None else self._objects.get(self.query.image)

    @property
    def is_combined(self) -> bool:
        """Whether the current query has a text or several images. Such a query is not re-ranked."""
        return self.query is not None and self.query.is_combined

    @property
    def text_hint(self) -> str:
        """Why searches by text are not available, with the remedy; empty if they are."""
        return self._searcher.text_hint

    @property
    def methods(self) -> tuple[Method, ...]:
        """One method, or two for comparison, as the current query uses them."""
        chosen = (self.method,) if self.other is None else (self.method, self.other)
        return tuple(replace(method, reranker=NAMES[0]) for method in chosen) if self.is_combined else chosen

    @property
    def needs_search(self) -> bool:
        """Whether choices changed since the last search."""
        return self.step is not None and (self._searched is None or self._searched[0] != self._request)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The results, one column per method; empty if `search` must run first."""
        return () if self.needs_search or self._searched is None else self._searched[1]

    @property
    def explained(self) -> ShownExplanation | None:
        """The last result of `why`, until the search results change."""
        if self._explained is None or not self.columns or self._explained[0] != self._request:
            return None
        return self._explained[1]

    @property
    def listed(self) -> np.ndarray:
        """int64: the rows of all thumbnails."""
        if self.class_name is None:
            return np.arange(len(self.images))
        return np.flatnonzero(self.images.labels == self._label(self.class_name))

    @property
    def pages(self) -> int:
        """Pages of thumbnails, at least one."""
        return max(1, -(-len(self.listed) // self.per_page))

    @property
    def rows(self) -> list[int]:
        """The images on the current page of thumbnails."""
        return self.listed[self.page * self.per_page :][: self.per_page].tolist()

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Values for `filter`: the classes that have images, and "–" if some images have no class."""
        names = [name for name, count in zip(self.images.class_names, self.images.counts, strict=True) if count]
        return (*names, *([NO_CLASS_NAME] if (self.images.labels == NO_CLASS).any() else []))

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """The re-rankers that work with a method's index and the query; all of them until the index is built."""
        return NAMES[:1] if self.is_combined else self._searcher.rerankers_for(method)

    @property
    def undoable(self) -> str:
        """What `undo` would undo, such as ``a mark``; empty for nothing."""
        if not self._undo or self._undo[-1][2] != self.history.steps:
            return ""
        return UNDOABLE[self._undo[-1][0]]

    def class_of(self, query: Query) -> str:
        """The name of a query's class, ``"–"`` for none."""
        return query.given_class or NO_CLASS_NAME if query.row is None else self.images.class_name(query.row)

    def pixels(self, query: Query, whole: bool = False) -> np.ndarray:
        """The image of a query, uint8 (height, width, 3): its crop or only box, or the ``whole`` image.

        Raises
        ------
        UnreadableImage : the image was removed.
        ValueError : the query has no image.
        """
        if not query.image:
            raise ValueError("a query by text alone has no pixels")
        source: Path | bytes | None
        if query.upload is not None:
            source = self.history.uploads.get(query.upload)
        else:
            source = query.path if query.row is None else self.images.paths[query.row]
        if source is None:
            raise UnreadableImage(f"{query.name} was removed from memory. Upload it again.")
        pixels = read_image(source)
        if not whole and len(query.boxes) == 1:
            return query.boxes[0].cut(pixels)
        return pixels if whole or query.crop is None else query.crop.cut(pixels)

    # ---- thumbnails ------------------------------------------------------------------------------------

    @_action
    def next_page(self) -> None:
        """Show the next page, if there is one."""
        self.page = min(self.page + 1, self.pages - 1)

    @_action
    def previous_page(self) -> None:
        """Show the previous page, if there is one."""
        self.page = max(self.page - 1, 0)

    @_action
    def filter(self, class_name: str | None) -> None:
        """Show thumbnails and results of one class, or of all for None."""
        self.class_name, self.page = self._class(class_name), 0

    # ---- the query -------------------------------------------------------------------------------------

    @_action
    def choose(self, row: int) -> None:
        """Make an image of the set the query, by its row."""
        self._choose(row)

    @_action
    def random(self) -> None:
        """Make a random image of the listed class the query, never the current one."""
        current = self.query.row if self.query else None
        rows = [row for row in self.listed.tolist() if row != current]
        if not rows:
            raise InvalidAction("There is no other image to choose.")
        self._choose(rows[self._random.integers(len(rows))])

    @_action
    def choose_path(self, path: str | Path) -> None:
        """Make a file the query. A path or key of an image of the set selects that image."""
        text = str(path).strip().strip("\"'")
        if not text:
            raise InvalidAction("No path was given.")
        try:
            file = Path(text).expanduser()
            row = self._row_of.get(text, self._row_of.get(os.path.realpath(file)))
            special = file.exists() and not file.is_file()
        except (ValueError, RuntimeError, OSError) as error:
            raise InvalidAction(f"{text!r} is not a path: {error}.") from error
        if row is not None:
            self._choose(row)
            return
        if special:
            raise InvalidAction(f"{file} is not a file.")
        read_image(file)
        self.history.add(Query(file.name, path=file.absolute()))

    @_action
    def upload(self, name: str, content: bytes) -> None:
        """Make an uploaded file the query. Only the latest uploads stay in memory."""
        name, content = str(name)[:200] or "upload", bytes(content)
        if len(content) > MAX_UPLOAD:
            raise InvalidAction(
                f"{name} has {len(content) / 2**20:.0f} MB, and the limit is {MAX_UPLOAD // 2**20} MB. Choose a "
                "smaller file, or give the path of this one."
            )
        try:
            read_image(content)
        except UnreadableImage as error:
            raise InvalidAction(str(error).replace("the image given as bytes", name)) from error
        self.history.add_upload(name, content)

    @_action
    def set_class(self, class_name: str | None) -> None:
        """Give the query image a class if it is not in the set: results of that class are then relevant."""
        query, class_name = self._current_image(), self._class(class_name)
        if query.row is not None:
            raise InvalidAction(
                "Only an image that is not in the set can be given a class. Choose a file or upload one."
            )
        if class_name == NO_CLASS_NAME:
            raise InvalidAction("Choose one of the classes of the set.")
        self._current().query = replace(query, given_class=class_name)

    def paste(self, content: bytes) -> "Picker":
        """Make an image from the clipboard the query."""
        return self.upload("pasted image", content)

    @_action
    def crop(self, left: float, top: float, width: float, height: float) -> None:
        """Make a part of the image the query: a rectangle in fractions of its width and height, clipped to the image.

        The whole image as a rectangle removes the crop.
        """
        query = self._current_image()
        numbers = _numbers((left, top, width, height))
        if numbers.shape != (4,) or not np.isfinite(numbers).all():
            raise InvalidAction("A crop needs four numbers: left, top, width and height.")
        start, end = np.clip([numbers[:2], numbers[:2] + numbers[2:]], 0, 1)
        crop = Crop(*start.tolist(), *(end - start).tolist())
        if min(crop.width, crop.height) < MIN_CROP:
            raise InvalidAction(f"The crop is too small: its sides must be at least {MIN_CROP:.0%} of the image's.")
        self.history.add(replace(query, crop=None if crop.width == crop.height == 1 else crop, boxes=()))

    @_action
    def uncrop(self) -> None:
        """Make the whole image the query again."""
        self.history.add(replace(self._current_image(), crop=None, boxes=()))

    @_action
    def choose_boxes(self, boxes: Sequence[Sequence[float]]) -> None:
        """Make parts of the image the query: boxes of x, y, width and height in pixels, such as those of `objects`.

        One box is searched like a crop. Several boxes are searched at once, among the regions of the gallery: each
        must match a different part of an image. No box makes the whole image the query again.
        """
        query, numbers = self._current_image(), _numbers(boxes)
        if not numbers.ndim or len(numbers) > MAX_PARTS:
            raise InvalidAction(f"A list of at most {MAX_PARTS} boxes was expected, each x, y, width and height.")
        pixels = self.pixels(query, whole=True)
        try:
            checked = [Box.of(check_box(box, *pixels.shape[1::-1]), pixels) for box in numbers]
        except ValueError as error:
            reason = str(error)
            raise InvalidAction(reason[:1].upper() + reason[1:]) from error
        # A box twice would need two parts of an image that are the same.
        self.history.add(replace(query, crop=None, boxes=tuple(dict.fromkeys(checked))))

    @_action
    def follow(self, id: int) -> None:
        """Make a result the next query."""
        if not any(result.id == id for column in self.columns for result in column.results):
            raise InvalidAction("That image is not among the results.")
        self._choose(id)

    @_action
    def add(self, row: int) -> None:
        """Add an image of the set to the query: results resemble all images and texts of it."""
        row, query = self._row(row), self.query or Query()
        if row in images_of(query):
            raise InvalidAction("That image is already a part of the query.")
        if len(self.parts) >= MAX_PARTS:
            raise InvalidAction(f"A query has at most {MAX_PARTS} images and texts.")
        self.history.add(with_image(query, row, self.images.keys))

    @_action
    def set_weight(self, part: int, weight: float) -> None:
        """Change the weight of a part of the query, by its row in `parts`.

        The score of an image is the weighted mean of its cosines with the parts, see `search_parts`. A part with a
        negative weight is what results must not resemble; one with weight 0 changes nothing.
        """
        query, part = self._part(part)
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not abs(weight) <= MAX_WEIGHT:
            limits = f"from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            raise InvalidAction(f"A weight must be a number {limits}, got {str(weight)[:40]!r}.")
        if not query.is_combined:
            raise InvalidAction("Weights are for queries of several parts. Add an image or a text first.")
        weights = list(weights_of(query))
        weights[part] = float(weight)
        self._change_query(with_weights(query, weights))

    @_action
    def remove_part(self, part: int) -> None:
        """Remove a part of the query, by its row in `parts`."""
        query, part = self._part(part)
        self._change_query(without_part(query, part, self.images.keys))

    @_action
    def back(self) -> None:
        """Go back to the previous query and the results that it had."""
        if self.history.position < 1:
            raise InvalidAction("There is no previous query.")
        self.history.position -= 1

    @_action
    def undo(self) -> None:
        """Undo the last change of the parts, weights or marks of a query."""
        if not self.undoable:
            raise InvalidAction("There is nothing to undo.")
        self.history.restore(self._undo.pop()[1])

    @_action
    def forward(self) -> None:
        """Go to the next query, after `back`."""
        if self.history.position + 1 >= len(self.history.steps):
            raise InvalidAction("There is no next query.")
        self.history.position += 1

    # ---- methods ---------------------------------------------------------------------------------------

    @_action
    def use(self, extractor: str | None = None, index: str | None = None, reranker: str | None = None) -> None:
        """Change the first method; None keeps a part."""
        self.method = self._changed(self.method, extractor=extractor, index=index, reranker=reranker)

    @_action
    def compare(self, extractor: str | None = None, index: str | None = None, reranker: str | None = None) -> None:
        """Add or change the second method; None keeps a part. It starts with the next extractor."""
        start = self.other
        if start is None:
            following = (self.extractors.index(self.method.extractor) + 1) % len(self.extractors)
            start = Method(self.extractors[following], self.method.index)
        self.other = self._changed(start, extractor=extractor, index=index, reranker=reranker)

    @_action
    def compare_off(self) -> None:
        """Remove the second method."""
        self.other = None

    @_action
    def set_k(self, k: int) -> None:
        """Set the number of results per query; values out of range are clipped, with a note."""
        requested = _integer(k, "k")
        self.k = min(max(1, requested), self.limit)
        if requested > self.limit:
            reason = f"the gallery has {len(self._searcher)} images" if self.limit < MAX_K else f"the limit is {MAX_K}"
            self.message = Message("note", f"{requested} results requested; {reason}, so k is {self.k}.")
        elif requested < 1:
            self.message = Message("note", f"k must be at least 1, so it is {self.k}.")

    # ---- marks -----------------------------------------------------------------------------------------

    @_action
    def mark(self, id: int, good: bool | None) -> None:
        """Mark a result as good or bad, or remove its mark for None; `search_again` applies the marks."""
        step, id = self._current(), _integer(id, "The id")
        if not 0 <= id < len(self.images) or id in images_of(step.query):
            raise InvalidAction(f"Image {id} cannot be marked: it is the query itself or does not exist.")
        others = {other: sign for other, sign in step.marks.items() if other != id}
        step.marks = others if good is None else others | {id: bool(good)}

    @_action
    def search_again(self) -> None:
        """Apply the marks: the query moves towards good results and away from bad ones (Rocchio)."""
        step = self._current()
        if not step.marks and not step.applied:
            raise InvalidAction("Mark some results as good or bad first.")
        step.applied = step.marks

    @_action
    def forget_marks(self) -> None:
        """Remove all marks of the query."""
        step = self._current()
        step.marks, step.applied = {}, {}

    # ---- slow actions ----------------------------------------------------------------------------------

    @_action
    def set_text(self, text: str) -> None:
        """Set the text of the query, such as "boat at night -people": results show a boat at night, and no people.

        The image stays a part of the query. An empty text removes the former one. A text without a known word changes
        nothing. The first call loads the word vectors.
        """
        with self.lock:
            self.message = None
            query, methods = self.query or Query(), self.methods
        if not isinstance(text, str):
            raise InvalidAction(f"A text was expected, got {str(text)[:40]!r}.")
        text = " ".join(text.split())
        if not (text or query.text):
            raise InvalidAction("The text is empty. Describe what to find, such as: boat at night -people")
        try:
            texts = parse_text(text)
            if len(texts) + len(images_of(query)) > MAX_PARTS:
                raise InvalidAction(f"A query has at most {MAX_PARTS} images and texts.")
            for method in methods if texts else ():
                self._searcher.check_texts(method, texts)
        except (TextError, SearchError) as error:
            reason = str(error)
            raise InvalidAction(reason[:1].upper() + reason[1:]) from error
        with self.lock:
            self._change_query(with_text(self.query or Query(), text))

    @_action
    def find_objects(self) -> None:
        """Detect the objects in the image of the query; `objects` holds them. The first call loads the detector."""
        with self.lock:
            self.message = None
            query = self._current_image()
        pixels = self.pixels(query, whole=True)
        found = tuple(
            ShownObject(Box.of(box, pixels), name, score) for box, name, score in self._searcher.objects(pixels)
        )
        with self.lock:
            images = {step.query.image for step in self.history.steps}
            kept = {image: objects for image, objects in self._objects.items() if image in images}
            self._objects = kept | {query.image: found}
            chosen = f"{pluralize(len(found), 'object')} found. Choose the ones to search with."
            text = chosen if found else "No object was found. Crop the image to search by a part of it."
            self.message = Message("note", text)

    @_action
    def search(self) -> None:
        """Search with the current choices. The first search with an extractor extracts the whole gallery.

        A failed search is tried again. Choices made during the search are not part of it; `needs_search` is true then.
        """
        with self.lock:
            request, needed = self._request, self.needs_search
            if request is None:
                raise InvalidAction("Choose an image first.")
            if self.message is not None and self.message.kind == "error" and not needed:
                self.message = None
        if needed or not self.columns:
            columns: tuple[Column, ...] = ()
            try:
                columns = tuple(self._column(request, method) for method in request.methods)
            finally:
                with self.lock:
                    # A failed search counts as done, or the page would repeat it forever.
                    self._searched = request, columns

    @_action
    def why(self, id: int, column: int = 0) -> None:
        """Explain why a result is similar to the query; `explained` holds the explanation."""
        column = _integer(column, "The column")
        with self.lock:
            request, columns = self._request, self.columns
        if request is None or not 0 <= column < len(columns) or all(r.id != id for r in columns[column].results):
            raise InvalidAction("That image is not among the results.")
        if not request.query.image:
            raise InvalidAction("Only the similarity to an image can be explained, and the query has none.")
        if len(request.query.boxes) > 1:
            raise InvalidAction("Only the similarity to one part can be explained. Choose one box.")
        method = columns[column].method
        result = next(r for r in columns[column].results if r.id == id)
        self._report(f"Explaining a result of {method.extractor} …")
        why = self._searcher.why(method, self.pixels(request.query), id)
        with self.lock:
            self._explanations += 1
            note = _difference(why.similarity, result, request, method)
            self._explained = request, ShownExplanation(id, column, why, self._explanations, note)
            self.message = None

    def prepare_why(self) -> None:
        """Prepare `why` for the current methods, so that its first call is fast. Another thread can run it."""
        for method in self.methods:
            with contextlib.suppress(SearchError):
                self._searcher.prepare_why(method)

    @_action
    def close_why(self) -> None:
        """Remove the explanation."""
        self._explained = None

    def report_error(self, text: str) -> None:
        """Show an error that no user action caused."""
        self.message = Message("error", text)
        self._notify()

    # ---- private ---------------------------------------------------------------------------------------

    @property
    def _request(self) -> _Request | None:
        if self.step is None:
            return None
        return _Request(
            self.step.query, self.methods, self.k, tuple(sorted(self.step.applied.items())), self.class_name
        )

    @cached_property
    def _row_of(self) -> dict[str, int]:
        """Real path or key → row."""
        rows = {os.path.realpath(path): row for row, path in enumerate(self.images.paths)}
        return rows | {key: row for row, key in enumerate(self.images.keys)}

    def _class(self, class_name: str | None) -> str | None:
        """A name in `class_names`, from that name or as the page's JSON contains it."""
        if class_name is None or class_name in self.class_names:
            return class_name
        shown = {printable_lines(name): name for name in self.class_names}
        if class_name not in shown:
            raise InvalidAction(f"There is no class {class_name!r}.")
        return shown[class_name]

    def _label(self, class_name: str) -> int:
        return NO_CLASS if class_name == NO_CLASS_NAME else self.images.class_names.index(class_name)

    def _row(self, row: int) -> int:
        row = _integer(row, "The number of an image")
        if not 0 <= row < len(self.images):
            raise InvalidAction(f"There is no image {row}. The images are numbered 0 … {len(self.images) - 1}.")
        return row

    def _choose(self, row: int) -> None:
        row = self._row(row)
        self.history.add(Query(self.images.keys[row], row=row))

    def _current(self) -> Step:
        if self.step is None:
            raise InvalidAction("Choose an image first.")
        return self.step

    def _part(self, part: int) -> tuple[Query, int]:
        """The current query, and the number of one of its parts."""
        query, part = self._current().query, _integer(part, "The number of a part")
        if not 0 <= part < len(self.parts):
            raise InvalidAction(f"The query has no part {part}.")
        return query, part

    def _current_image(self) -> Query:
        """The current query, which has an image."""
        query = self._current().query
        if not query.image:
            raise InvalidAction("Choose an image first.")
        return query

    def _change_query(self, query: Query) -> None:
        """Put a query behind the current one, if it says what to find."""
        if not query.image and not query.text:
            raise InvalidAction("The query would be empty. Choose an image, or type another text.")
        if not any(weight > 0 for weight in weights_of(query)):
            raise InvalidAction("Say what to find, too: at least one part needs a positive weight.")
        self.history.add(query)

    def _changed(self, method: Method, **parts: str | None) -> Method:
        known = {"extractor": self.extractors, "index": self.indexes, "reranker": self.rerankers}
        changes = {part: value for part, value in parts.items() if value is not None}
        for part, value in changes.items():
            if value not in known[part]:
                raise InvalidAction(f"There is no {part} {value!r} here. Choose one of {', '.join(known[part])}.")
        if self.is_combined and changes.get("reranker", NAMES[0]) != NAMES[0]:
            raise InvalidAction("Re-ranking works for one image, not with a text or several images.")
        return replace(method, **changes)

    def _column(self, request: _Request, method: Method) -> Column:
        query, start = request.query, perf_counter()
        boxes = tuple(box[:4] for box in query.boxes) if len(query.boxes) > 1 else ()
        cropped = query.crop is not None or bool(query.boxes)
        images = [QueryImage(lambda: self.pixels(query), query.row, cropped, boxes=boxes)] if query.image else []
        images += [QueryImage(partial(read_image, self.images.paths[row]), row) for row in query.more]
        found, note = self._searcher.search(
            method,
            # The weights of the texts follow those of the images.
            [replace(image, weight=weight) for image, weight in zip(images, weights_of(query), strict=False)],
            texts_of(query),
            k=request.k,
            good=[id for id, good in request.applied if good],
            bad=[id for id, good in request.applied if not good],
            label=None if request.class_name is None else self._label(request.class_name),
        )
        # Nothing says which images are relevant to a text, or to several images.
        relevance = None if query.is_combined else self._searcher.relevance(query.row, query.given_class)
        results = tuple(
            ShownResult(
                rank, id, score, self.images.class_name(id), self.images.keys[id],
                None if relevance is None else bool(relevance[id]), boxes,
            )
            for rank, (id, score, boxes) in enumerate(found, start=1)
        )  # fmt: skip
        return Column(method, results, note, perf_counter() - start)

    def _report(self, progress: str) -> None:
        self.progress = progress
        self._notify()

    def _notify(self) -> None:
        for listener in list(self.listeners):
            listener()


def _difference(similarity: float, result: ShownResult, request: _Request, method: Method) -> str:
    """Why the similarity of two images is not the score of a result; empty if it is, up to rounding."""
    if abs(similarity - result.score) < _SAME_SCORE:
        return ""
    reasons = {
        f"comes from the re-ranking {method.reranker}": method.reranker != NAMES[0],
        "is the weighted mean of all parts of the query": request.query.is_combined,
        "comes from the query that the marks moved": bool(request.applied),
        "comes from the parts that match best": bool(result.boxes),
    }
    other = "comes from the vectors in the index, which are compressed, or from an earlier version of the file"
    reason = next((text for text, holds in reasons.items() if holds), other)
    return f"The score of the result, {result.score:.3f}, {reason}."


def _numbers(values: object) -> np.ndarray:
    """float64 from values that a page or a user gave; an array of shape () if they are not numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.empty(())


def _integer(value: object, name: str) -> int:
    """A whole number from a value that a page or a user gave."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidAction(f"{name} must be a whole number, got {str(value)[:40]!r}.")
    return int(value)
