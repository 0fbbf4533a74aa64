"""The query picker's state: which image asks, by which method, and what was answered; plain Python, no browser.

`helpers.picker.view` shows it. Whatever a person does is a method here, and a mistake of theirs (an unreadable
upload, a path that is not there) becomes the state's `message`, never an exception. Choosing is quick; what takes
long, `Picker.search` and `Picker.why`, works on a copy of the choices, so that another thread may do it.
"""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import NamedTuple

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.features.explain import Explanation
from helpers.features.extractor import FeatureExtractor
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.reading import UnreadableImage, read_image
from helpers.networks.weights import WeightsUnavailable
from helpers.picker.search import CantSearch, Finder, Method
from helpers.visualization import grids

#: What `Picker.filter` calls images of no class; `ImageSet.class_name` writes the same.
NO_CLASS_NAME = "–"
#: The most answers to a query.
MAX_K = 100
#: Queries that can be gone back to.
HISTORY = 50
#: Uploaded images that are kept, how many and how many bytes of them; the oldest go first.
UPLOADS, UPLOAD_BYTES = 30, 64 * 2**20
#: The largest upload.
LARGEST_UPLOAD = 32 * 2**20
#: A crop's shortest side, as part of the image's.
SMALLEST_CROP = 0.02


class Mistake(ValueError):
    """Something that a person asked for and that can't be done; the message says why."""


#: What becomes a message; anything else is an error of this program and is raised.
_MISTAKES = (Mistake, CantSearch, UnreadableImage, WeightsUnavailable)


class Crop(NamedTuple):
    """A part of an image, in parts of its width and height: 0 … 1 from the upper left corner."""

    left: float
    top: float
    width: float
    height: float

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The part of uint8 (height, width, 3), at least one pixel."""
        spans = []
        for start, length, side in (
            (self.top, self.height, pixels.shape[0]),
            (self.left, self.width, pixels.shape[1]),
        ):
            first = min(int(start * side), side - 1)
            spans.append(slice(first, max(first + 1, round((start + length) * side))))
        return pixels[tuple(spans)]


@dataclass(frozen=True)
class Query:
    """An image that asks: one of the set (``row``), a file beside it (``path``) or an upload, by its digest."""

    name: str
    row: int | None = None
    path: Path | None = None
    upload: str | None = None
    crop: Crop | None = None

    @property
    def image(self) -> str:
        """Which image it is, whatever part of it asks."""
        return f"row-{self.row}" if self.row is not None else f"file-{self.path or self.upload}"


@dataclass
class Step:
    """One entry of the history: a query, what was marked for it, and which marks the answers heed."""

    query: Query
    marks: dict[int, bool] = field(default_factory=dict)
    heeded: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """One answer as a person sees it; ``verdict`` is None where nobody knows whether it is right."""

    rank: int
    id: int
    score: float
    class_name: str
    key: str
    verdict: bool | None


@dataclass(frozen=True)
class Column:
    """The answers of one method; ``note`` says what a person should know of them."""

    method: Method
    results: tuple[Shown, ...]
    note: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Explained:
    """Why an answer is similar: its id, the column it stands in, the maps, and the how-many-th such question it was."""

    id: int
    column: int
    why: Explanation
    number: int


class Message(NamedTuple):
    """What the state has to say to a person: ``kind`` is ``"error"`` or ``"note"``."""

    kind: str
    text: str


class _Asked(NamedTuple):
    """Everything that the answers depend on."""

    query: Query
    methods: tuple[Method, ...]
    k: int
    heeded: tuple[tuple[int, bool], ...]


def _action(method: Callable) -> Callable:
    """Something that a person does: alone, with mistakes told and not raised; gives the picker, so that calls chain."""

    @wraps(method)
    def done(self: "Picker", *arguments, **named) -> "Picker":
        with self.lock:
            self.message = None
            with self._mistakes_told():
                method(self, *arguments, **named)
        self._tell()
        return self

    return done


class Picker:
    """A query and its answers, and everything that a person can do to change them.

    Parameters
    ----------
    images : what is looked through; an image's id is its row.
    extractors : names of extractors, or extractors. indexes : specs as `open_index` takes them. The first of each is
        chosen at the beginning.
    rules : who answers, who is right and who never counts, bound to ``images`` (`Protocol.bind`). Without, all
        images answer, copies (``images.groups``) of the query excepted, and right is who has the query's class.
    k : answers. per_page : thumbnails on a page. seed : of `random`.

    Attributes
    ----------
    method, other : extractor, index and re-ranker; the second method or None.
    steps, position : the history and where in it; -1 as long as it is empty.
    page, class_name : which thumbnails are shown; of one class, or None for all.
    message : what was wrong or should be known, or None. doing : what takes long right now, or empty.
    listeners : called without arguments after every change. lock : held while something changes; whoever reads several
        things that must belong together holds it, too.

    Raises
    ------
    ValueError : no image, no extractor or no index; two extractors of one name; rules on other images.

    >>> picker = Picker(images, ["resnet50", "hsv-histogram"]).choose(5).search()     # doctest: +SKIP
    >>> picker.columns[0].answers[0].key                                              # doctest: +SKIP
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
    ):
        if protocol is not None and protocol.keys != images.keys:
            raise ValueError(
                f"{protocol.name} speaks of other images than {images.name!r}: give what rules.bind returns"
            )
        if per_page < 1:
            raise ValueError(f"per_page must be at least 1, got {per_page}")
        self.images, self.protocol = images, protocol
        self._finder = Finder(images, extractors, indexes, protocol, self._say)
        self.extractors, self.indexes = self._finder.extractors, self._finder.indexes
        self.per_page = per_page
        self.method = Method(self.extractors[0], self.indexes[0])
        self.other: Method | None = None
        self.steps: list[Step] = []
        self.position = -1
        self.page = 0
        self.class_name: str | None = None
        self.message: Message | None = None
        self.doing = ""
        self.listeners: list[Callable[[], object]] = []
        self._uploads: dict[str, bytes] = {}
        self._random = np.random.default_rng(seed)
        self.lock = RLock()
        # One search at a time: a network is built once, whoever asks first.
        self._searching = RLock()
        self._answered: tuple[_Asked, tuple[Column, ...]] | None = None
        self._explained: tuple[_Asked, Explained] | None = None
        self._questions = 0
        self.k = 1
        self.set_k(k)

    def __repr__(self) -> str:
        asks = f"query {self.query.name}" if self.query else "no query yet"
        methods = " | ".join(map(str, self.methods))
        return f"Picker({self.images.name!r}: {len(self.images)} images, {asks}, {methods}, k {self.k})"

    # ---- what there is ---------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The largest k."""
        return min(MAX_K, len(self._finder))

    @property
    def step(self) -> Step | None:
        """Where in the history we are."""
        return self.steps[self.position] if self.steps else None

    @property
    def query(self) -> Query | None:
        """The image that asks."""
        return self.step.query if self.steps else None

    @property
    def methods(self) -> tuple[Method, ...]:
        """One, or two side by side."""
        return (self.method,) if self.other is None else (self.method, self.other)

    @property
    def needs_search(self) -> bool:
        """Whether something was chosen that `columns` does not answer."""
        return self.steps != [] and (self._answered is None or self._answered[0] != self._asked)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The answers, one column a method; none before `search`."""
        return () if self.needs_search or self._answered is None else self._answered[1]

    @property
    def explained(self) -> Explained | None:
        """What `why` found, as long as the answers stand that it speaks of."""
        stands = self._explained is not None and self.columns and self._explained[0] == self._asked
        return self._explained[1] if stands else None

    @property
    def pages(self) -> int:
        """Pages of thumbnails; at least one."""
        return max(1, -(-len(self._listed) // self.per_page))

    @property
    def rows(self) -> list[int]:
        """The images on the page of thumbnails."""
        return self._listed[self.page * self.per_page :][: self.per_page].tolist()

    @property
    def listed(self) -> int:
        """Images on all pages together."""
        return len(self._listed)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """What `filter` takes: the classes that have images, and "–" where some have no class."""
        names = [name for name, count in zip(self.images.class_names, self.images.counts, strict=True) if count]
        return (*names, *([NO_CLASS_NAME] if (self.images.labels == NO_CLASS).any() else []))

    @property
    def rerankers(self) -> tuple[str, ...]:
        """Names of the re-rankers; the first of them is none."""
        return self._finder.rerankers

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """Those of `rerankers` that can follow a method's index, as far as that is known yet."""
        return self._finder.rerankers_for(method)

    def class_of(self, query: Query) -> str:
        """The class of a query in words; ``"–"`` where it has none."""
        return NO_CLASS_NAME if query.row is None else self.images.class_name(query.row)

    def pixels(self, query: Query, whole: bool = False) -> np.ndarray:
        """The image that asks, uint8 (height, width, 3): the part of it, or with ``whole`` all of it.

        Raises
        ------
        UnreadableImage : it is no longer where it was.
        """
        if query.upload is not None:
            source = self._uploads.get(query.upload)
            if source is None:
                raise UnreadableImage(f"{query.name} is no longer kept. Upload it again.")
        else:
            source = query.path if query.row is None else self.images.paths[query.row]
        pixels = read_image(source)
        return pixels if whole or query.crop is None else query.crop.cut(pixels)

    # ---- thumbnails ------------------------------------------------------------------------------------

    @_action
    def turn_to(self, page: int) -> None:
        """A page of thumbnails, 0 … pages - 1."""
        page = _whole(page, "the page")
        if not 0 <= page < self.pages:
            raise Mistake(f"There is no page {page + 1}: there are {self.pages}.")
        self.page = page

    @_action
    def next_page(self) -> None:
        """The page behind; the last one stays."""
        self.page = min(self.page + 1, self.pages - 1)

    @_action
    def previous_page(self) -> None:
        """The page before; the first one stays."""
        self.page = max(self.page - 1, 0)

    @_action
    def filter(self, class_name: str | None) -> None:
        """Thumbnails of one class; of all for None."""
        if class_name is not None and class_name not in self.class_names:
            raise Mistake(f"There is no class {class_name!r}.")
        self.class_name, self.page = class_name, 0

    # ---- which image asks ----------------------------------------------------------------------------

    @_action
    def choose(self, row: int) -> None:
        """An image of the set by its row, which is its id."""
        self._choose(row)

    @_action
    def random(self) -> None:
        """Any of the images that the thumbnails run through, but another one than now."""
        now = self.query.row if self.query else None
        rows = [row for row in self._listed.tolist() if row != now]
        if not rows:
            raise Mistake("There is no other image to choose.")
        self._choose(rows[self._random.integers(len(rows))])

    @_action
    def choose_path(self, path: str | Path) -> None:
        """A file; one of the set is known again, by its path or by its key."""
        text = str(path).strip().strip("\"'")
        if not text:
            raise Mistake("No path was given.")
        try:
            file = Path(text).expanduser()
            row = self._row_of.get(text, self._row_of.get(os.path.realpath(file)))
            odd = file.exists() and not file.is_file()
        except (ValueError, RuntimeError, OSError) as error:
            raise Mistake(f"{text!r} is no path: {error}.") from error
        if row is not None:
            self._choose(row)
            return
        if odd:
            raise Mistake(f"{file} is no file.")
        read_image(file)
        self._ask(Query(file.name, path=file.absolute()))

    @_action
    def upload(self, name: str, content: bytes) -> None:
        """An image from elsewhere, as the bytes of a file. It is kept in memory, and only for a while."""
        name, content = str(name)[:200] or "upload", bytes(content)
        if len(content) > LARGEST_UPLOAD:
            raise Mistake(
                f"{name} takes {len(content) / 2**20:.0f} MB, more than {LARGEST_UPLOAD // 2**20}: make it smaller."
            )
        try:
            read_image(content)
        except UnreadableImage as error:
            raise Mistake(str(error).replace("the image given as bytes", name)) from error
        digest = hashlib.sha256(content).hexdigest()
        self._uploads[digest] = self._uploads.pop(digest, content)
        self._ask(Query(name, upload=digest))
        self._forget_uploads()

    def paste(self, content: bytes) -> "Picker":
        """An image from the clipboard."""
        return self.upload("pasted image", content)

    @_action
    def crop(self, left: float, top: float, width: float, height: float) -> None:
        """Let a part of the image ask: a rectangle in parts of its width and height; what lies outside is cut off."""
        query = self._asking()
        try:
            numbers = [float(number) for number in (left, top, width, height)]
        except (TypeError, ValueError):
            numbers = []
        if not numbers or not np.isfinite(numbers).all():
            raise Mistake("A crop takes four numbers: left, top, width and height.")
        (first, last), (upper, lower) = (
            np.clip([start, start + length], 0, 1)
            for start, length in ((numbers[0], numbers[2]), (numbers[1], numbers[3]))
        )
        crop = Crop(float(first), float(upper), float(last - first), float(lower - upper))
        if min(crop.width, crop.height) < SMALLEST_CROP:
            raise Mistake(f"That part is too small: at least {SMALLEST_CROP:.0%} of the image's width and height.")
        whole = crop.width == crop.height == 1
        self._ask(replace(query, crop=None if whole else crop))

    @_action
    def uncrop(self) -> None:
        """Let the whole image ask again."""
        self._ask(replace(self._asking(), crop=None))

    @_action
    def follow(self, id: int) -> None:
        """Make an answer the next query."""
        if not any(result.id == id for column in self.columns for result in column.results):
            raise Mistake("That image is not among the answers.")
        self._choose(id)

    @_action
    def back(self) -> None:
        """To the query before; its answers heed the marks that they heeded then."""
        if self.position < 1:
            raise Mistake("There is no query before this one.")
        self.position -= 1

    @_action
    def forward(self) -> None:
        """To the query behind, after `back`."""
        if self.position + 1 >= len(self.steps):
            raise Mistake("There is no query behind this one.")
        self.position += 1

    # ---- by which method -------------------------------------------------------------------------------

    @_action
    def use(self, extractor: str | None = None, index: str | None = None, reranker: str | None = None) -> None:
        """Another extractor, index or re-ranker; what is None stays."""
        self.method = self._checked(self.method, extractor, index, reranker)

    @_action
    def compare(self, extractor: str | None = None, index: str | None = None, reranker: str | None = None) -> None:
        """A second method beside the first, on the same query; what is None stays as it is there."""
        start = self.other
        if start is None:
            following = (self.extractors.index(self.method.extractor) + 1) % len(self.extractors)
            start = Method(self.extractors[following], self.method.index)
        self.other = self._checked(start, extractor, index, reranker)

    @_action
    def compare_off(self) -> None:
        """One method alone again."""
        self.other = None

    @_action
    def set_k(self, k: int) -> None:
        """So many answers; a number out of range is brought into it, with a note."""
        wanted = _whole(k, "k")
        self.k = min(max(1, wanted), self.limit)
        if wanted > self.limit:
            why = f"the gallery has {len(self._finder)} images" if self.limit < MAX_K else f"{MAX_K} is the most"
            self.message = Message("note", f"{wanted} answers were asked for; {why}, so k is {self.k}.")
        elif wanted < 1:
            self.message = Message("note", f"k must be at least 1, so it is {self.k}.")

    # ---- marks -----------------------------------------------------------------------------------------

    @_action
    def mark(self, id: int, good: bool | None) -> None:
        """Say that an answer is good or bad, or for None nothing any more; `search_again` heeds it."""
        query, id = self._asking(), _whole(id, "the id")
        if not 0 <= id < len(self.images) or id == query.row:
            raise Mistake(f"Image {id} can't be marked: it is the query itself, or there is none.")
        if good is None:
            self.step.marks.pop(id, None)
        else:
            self.step.marks[id] = bool(good)

    @_action
    def search_again(self) -> None:
        """Let the answers heed the marks: the query moves towards good ones and away from bad ones (Rocchio)."""
        self._asking()
        if not self.step.marks and not self.step.heeded:
            raise Mistake("Mark some answers as good or bad first.")
        self.step.heeded = dict(self.step.marks)

    @_action
    def forget_marks(self) -> None:
        """Answers as if nothing had been marked."""
        self._asking()
        self.step.marks, self.step.heeded = {}, {}

    # ---- what takes long -------------------------------------------------------------------------------

    def search(self) -> "Picker":
        """Answer what was chosen. The first time with an extractor, all of the gallery is described.

        What failed is tried again. Choices that are made meanwhile are not answered: `needs_search` says so.
        """
        with self._searching:
            with self.lock:
                asked, needed = self._asked, self.needs_search
                if asked is None:
                    self.message = Message("error", "Choose an image first.")
                elif self.message is not None and self.message.kind == "error" and not needed:
                    self.message = None
            if asked is not None and (needed or not self.columns):
                columns: tuple[Column, ...] = ()
                try:
                    with self._mistakes_told():
                        columns = tuple(self._column(asked, method) for method in asked.methods)
                finally:
                    with self.lock:
                        self.doing = ""
                        # What failed counts as answered: it is not tried again and again by itself.
                        self._answered = asked, columns
        self._tell()
        return self

    def why(self, id: int, column: int = 0) -> "Picker":
        """What makes an answer similar to the query; `explained` holds it then."""
        with self._searching, self._mistakes_told():
            column = _whole(column, "the column")
            with self.lock:
                asked, columns = self._asked, self.columns
            if not 0 <= column < len(columns) or all(result.id != id for result in columns[column].results):
                raise Mistake("That image is not among the answers.")
            method = columns[column].method
            self._say(f"Asking {method.extractor} why …")
            try:
                found = self._finder.why(method, self.pixels(asked.query), id)
            finally:
                self.doing = ""
            with self.lock:
                self._questions += 1
                self._explained = asked, Explained(id, column, found, self._questions)
                self.message = None
        self._tell()
        return self

    @_action
    def close_why(self) -> None:
        """Put away what `why` found."""
        self._explained = None

    def tell_error(self, text: str) -> None:
        """Say that something failed that is nobody's mistake."""
        self.message = Message("error", text)
        self._tell()

    # ---- to take away ----------------------------------------------------------------------------------

    def ranking_csv(self, column: int = 0) -> str:
        """The answers of a column as a table: rank, id, score, class, verdict (○, ✗ or empty), key."""
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["rank", "id", "score", "class", "verdict", "key"])
        columns = self.columns
        for result in columns[column].results if column < len(columns) else ():
            sign = grids.SIGNS.get(result.verdict, "")
            name = "" if result.class_name == NO_CLASS_NAME else result.class_name
            table.writerow([result.rank, result.id, repr(result.score), name, sign, result.key])
        return text.getvalue()

    def grid_png(self, dpi: int = 80) -> bytes:
        """What can be seen, as an image: query and answers; before the first query the page of thumbnails."""
        if self.query is None:
            rows = self.rows
            figure = grids.image_grid(self.images, rows, columns=min(8, len(rows)))
        else:
            columns = self.columns
            figure = grids.picked_grid(
                self.pixels(self.query),
                "query\n" + (Path(self.query.name).name if self.query.row is None else self.class_of(self.query)),
                [(str(column.method), column.results) for column in columns],
                self.images.paths,
                self.step.marks,
            )
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=dpi)
        return image.getvalue()

    # ---- inside ----------------------------------------------------------------------------------------

    @property
    def _asked(self) -> _Asked | None:
        if not self.steps:
            return None
        return _Asked(self.query, self.methods, self.k, tuple(sorted(self.step.heeded.items())))

    @property
    def _listed(self) -> np.ndarray:
        """int64: the rows that the thumbnails run through."""
        if self.class_name is None:
            return np.arange(len(self.images))
        if self.class_name == NO_CLASS_NAME:
            return np.flatnonzero(self.images.labels == NO_CLASS)
        return np.flatnonzero(self.images.labels == self.images.class_names.index(self.class_name))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        """Real path or key → row."""
        rows = {os.path.realpath(path): row for row, path in enumerate(self.images.paths)}
        return rows | {key: row for row, key in enumerate(self.images.keys)}

    def _choose(self, row: int) -> None:
        row = _whole(row, "the number of an image")
        if not 0 <= row < len(self.images):
            raise Mistake(f"There is no image {row}: they are numbered 0 … {len(self.images) - 1}.")
        self._ask(Query(self.images.keys[row], row=row))

    def _ask(self, query: Query) -> None:
        """Put a query into the history; what lay in front of it is cut off."""
        if query == self.query:
            return
        self.steps = [*self.steps[: self.position + 1], Step(query)][-HISTORY:]
        self.position = len(self.steps) - 1
        self._forget_uploads()

    def _asking(self) -> Query:
        if self.query is None:
            raise Mistake("Choose an image first.")
        return self.query

    def _forget_uploads(self) -> None:
        """Keep those that the history needs, and of these only so many; with an image go the queries by it."""
        needed = {step.query.upload for step in self.steps}
        self._uploads = {digest: content for digest, content in self._uploads.items() if digest in needed}
        while len(self._uploads) > UPLOADS or sum(map(len, self._uploads.values())) > UPLOAD_BYTES:
            oldest = next(digest for digest in self._uploads if digest != self.query.upload)
            del self._uploads[oldest]
            now = self.step
            self.steps = [step for step in self.steps if step.query.upload != oldest]
            self.position = next(place for place, step in enumerate(self.steps) if step is now)

    def _checked(self, method: Method, extractor, index, reranker) -> Method:
        given = {"extractor": extractor, "index": index, "reranker": reranker}
        for part, value in given.items():
            known = {"extractor": self.extractors, "index": self.indexes, "reranker": self.rerankers}[part]
            if value is not None and value not in known:
                raise Mistake(f"There is no {part} {value!r} here; there are: {', '.join(known)}.")
        return replace(method, **{part: value for part, value in given.items() if value is not None})

    def _column(self, asked: _Asked, method: Method) -> Column:
        query, start = asked.query, perf_counter()
        found = self._finder.find(
            method,
            lambda: self.pixels(query),
            row=query.row,
            whole=query.crop is None,
            k=asked.k,
            good=[id for id, good in asked.heeded if good],
            bad=[id for id, good in asked.heeded if not good],
        )
        relevant = self._finder.relevant(query.row)
        results = tuple(
            Shown(
                place, id, score, self.images.class_name(id), self.images.keys[id],
                None if relevant is None else bool(relevant[id]),
            )
            for place, (id, score) in enumerate(found.results, start=1)
        )  # fmt: skip
        return Column(method, results, found.note, perf_counter() - start)

    @contextmanager
    def _mistakes_told(self):
        try:
            yield
        except _MISTAKES as error:
            self.message = Message("error", str(error))

    def _say(self, doing: str) -> None:
        self.doing = doing
        self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()


def _whole(value, what: str) -> int:
    """A whole number, from whatever a page or a person gave."""
    try:
        number = int(value)
        whole = not isinstance(value, bool) and (not isinstance(value, float) or number == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise Mistake(f"{what[0].upper()}{what[1:]} must be a whole number, got {str(value)[:40]!r}.")
    return number
