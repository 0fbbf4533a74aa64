"""The query picker as a widget in a notebook: it shows a `Picker` and hands on what a person does.

The page, ``static/picker.js``, gets the state as one JSON object and asks for images by their keys; it sends actions
back, each a method of the picker. What takes long is done in threads of its own, so that neither the page nor the
kernel stands still. A static image of the same state goes into the notebook beside the widget, for everyone who
reads it without a kernel.
"""

import base64
import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from queue import Full, Queue
from weakref import WeakKeyDictionary

import numpy as np

from helpers import extras
from helpers.features.explain import METHODS
from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage, read_image
from helpers.picker.state import Column, Picker, Query
from helpers.visualization.heatmaps import overlaid

with extras.importing("notebooks", "anywidget", "traitlets", "IPython"):
    import anywidget
    import traitlets
    from IPython.display import display

_STATIC = Path(__file__).parent / "static"
#: Longest sides in pixels: of thumbnails, of the query and of the images that `why` lays maps over.
_THUMBNAIL, _LARGE = 160, 480
#: Images that one message may ask for.
_MOST_IMAGES = 600
#: Messages that may wait; whoever sends more is no person.
_WAITING = 200

#: Views of one widget whose actions are counted.
_VIEWS = 20

#: What the page may do: action → names of its arguments. The picker checks the values.
ACTIONS = {
    "turn_to": ("page",),
    "next_page": (),
    "previous_page": (),
    "filter": ("class_name",),
    "choose": ("row",),
    "random": (),
    "choose_path": ("path",),
    "upload": ("name", "content"),
    "paste": ("content",),
    "crop": ("left", "top", "width", "height"),
    "uncrop": (),
    "follow": ("id",),
    "back": (),
    "forward": (),
    "use": ("extractor", "index", "reranker"),
    "compare": ("extractor", "index", "reranker"),
    "compare_off": (),
    "set_k": ("k",),
    "mark": ("id", "good"),
    "search_again": (),
    "forget_marks": (),
    "search": (),
    "why": ("id", "column"),
    "close_why": (),
}
#: Those that take long.
_LONG = {"search", "why"}

_WIDGETS: "WeakKeyDictionary[Picker, PickerView]" = WeakKeyDictionary()


def show(picker: Picker) -> None:
    """Show a picker in a notebook; below the widget lies the same as an image, for readers without a kernel."""
    # One widget, however often a cell is run: widgets live as long as their kernel.
    if picker not in _WIDGETS:
        _WIDGETS[picker] = PickerView(picker)
    display(_WIDGETS[picker])


class PickerView(anywidget.AnyWidget):
    """The widget of one picker. What is chosen in code shows at once, too.

    picker : its state.
    """

    _esm = _STATIC / "picker.js"
    _css = _STATIC / "picker.css"
    #: What `state_of` gives, as JSON.
    state = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, picker: Picker):
        self.picker = picker
        self._pushing = threading.Lock()
        self._images = _Images(picker)
        self._long, self._drawing = _Lane("picker search"), _Lane("picker images")
        #: View of the widget → the number of the last action that it asked for and that was done.
        self._done: OrderedDict[str, int] = OrderedDict()
        super().__init__(state=self._as_json())
        picker.listeners.append(self._push)
        self.on_msg(self._received)

    def __repr__(self) -> str:
        return repr(self.picker)

    def _repr_mimebundle_(self, **arguments):
        """The widget, and the same as text and as a PNG, which a saved notebook keeps."""
        bundle = super()._repr_mimebundle_(**arguments)
        if self.picker.needs_search:
            self.picker.search()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = data | {"text/plain": repr(self)}
        # An image that can't be read is told by the picker's message; the widget is shown all the same.
        with contextlib.suppress(UnreadableImage):
            data["image/png"] = base64.b64encode(self.picker.grid_png()).decode()
        return data, metadata

    def close(self) -> None:
        """Take it away from the page; the picker stays."""
        if self._push in self.picker.listeners:
            self.picker.listeners.remove(self._push)
        super().close()

    def _push(self) -> None:
        """The state to the page."""
        # Two threads that set a trait at a time would mix up their messages.
        with self._pushing, self.picker.lock:
            self.state = self._as_json()

    def _as_json(self) -> str:
        return json.dumps(state_of(self.picker) | {"done": dict(self._done)})

    def _received(self, _, message: dict, buffers: list) -> None:
        """Something from the page: an action, a wish for images, or for a file to keep."""
        match message:
            case {"do": str(action), "with": dict(given), "from": str(view), "number": int(number)} if (
                action in ACTIONS
            ):
                self._do(action, given, buffers, (view, number))
            case {"images": [*keys]}:
                self._drawing.put(lambda: self._send_images(keys))
            case {"keep": "png"}:
                self._long.put(lambda: self._send_file("png"))
            case {"keep": "csv", "column": 0 | 1 as column}:
                self._long.put(lambda: self._send_file("csv", column))

    def _do(self, action: str, given: dict, buffers: list, ticket: tuple[str, int]) -> None:
        values = {name: given[name] for name in ACTIONS[action] if name in given}
        if "content" in ACTIONS[action]:
            values["content"] = bytes(buffers[0]) if buffers else b""
        act = getattr(self.picker, action)
        if action in _LONG:
            self._long.put(lambda: (self._guarded(lambda: act(**values)), self._tick(*ticket)))
            return
        self._guarded(lambda: act(**values))
        if self.picker.needs_search:
            self._long.put(self._search)
        self._tick(*ticket)

    def _tick(self, view: str, number: int) -> None:
        """Tell a view that what it asked for is done, or that its search has begun."""
        with self._pushing:
            self._done[view] = max(number, self._done.pop(view, 0))
            while len(self._done) > _VIEWS:
                self._done.popitem(last=False)
        self._push()

    def _search(self) -> None:
        # Whatever was chosen meanwhile is searched once, not once for every choice.
        while self.picker.needs_search:
            self._guarded(self.picker.search)

    def _guarded(self, act: Callable) -> None:
        """An error of this program is no mistake of a person: it is told, and stands in the log of the kernel."""
        try:
            act()
        except UnreadableImage as error:
            self.picker.tell_error(str(error))
        except Exception as error:
            logging.getLogger(__name__).exception("the query picker failed")
            self.picker.tell_error(
                f"This should not happen ({type(error).__name__}: {error}). Search again, or restart."
            )

    def _send_images(self, keys: list) -> None:
        for key in keys[:_MOST_IMAGES]:
            content = self._images.get(str(key))
            self.send({"image": key, "there": content is not None}, [content] if content is not None else [])

    def _send_file(self, kind: str, column: int = 0) -> None:
        def send():
            picker = self.picker
            content = picker.ranking_csv(column).encode() if kind == "csv" else picker.grid_png(dpi=110)
            self.send({"file": f"{_file_name(picker, column)}.{kind}", "kind": kind}, [content])

        self._guarded(send)


def state_of(picker: Picker) -> dict:
    """All that the page shows, as plain JSON; images by their keys."""
    query, step, explained = picker.query, picker.step, picker.explained
    return {
        "set": {"name": picker.images.name, "size": len(picker.images)},
        "page": {
            "number": picker.page,
            "count": picker.pages,
            "listed": picker.listed,
            "class_name": picker.class_name,
            "class_names": picker.class_names,
            "thumbnails": [
                {"row": row, "class_name": picker.images.class_name(row), "key": picker.images.keys[row],
                 "image": f"row-{row}"}
                for row in picker.rows
            ],
        },
        "query": None if query is None else {
            "name": query.name,
            "class_name": picker.class_of(query),
            "row": query.row,
            "image": f"large-{query.image}",
            "crop": query.crop and query.crop._asdict(),
        },
        "history": {"position": picker.position, "length": len(picker.steps)},
        "extractors": picker.extractors,
        "indexes": picker.indexes,
        "rerankers": picker.rerankers,
        "possible": [picker.rerankers_for(method) for method in picker.methods],
        "method": vars(picker.method),
        "other": picker.other and vars(picker.other),
        "k": picker.k,
        "limit": picker.limit,
        "columns": [_column(column) for column in picker.columns],
        "marks": {str(id): good for id, good in step.marks.items()} if step else {},
        "heeded": step is not None and bool(step.heeded),
        "unheeded": step is not None and step.marks != step.heeded,
        "explained": None if explained is None else {
            "id": explained.id,
            "column": explained.column,
            "key": picker.images.keys[explained.id],
            "similarity": explained.why.similarity,
            "method": explained.why.method,
            "shows": METHODS[explained.why.method],
            "images": [f"why-{explained.number}-query", f"why-{explained.number}-answer"],
        },
        "searching": picker.needs_search,
        "doing": picker.doing,
        "message": picker.message and picker.message._asdict(),
    }  # fmt: skip


def _column(column: Column) -> dict:
    return {
        "method": vars(column.method),
        "note": column.note,
        "seconds": column.seconds,
        "results": [vars(result) | {"image": f"row-{result.id}"} for result in column.results],
    }


def _file_name(picker: Picker, column: int) -> str:
    """A name for a file on any system, such as ``eagle_hsv-histogram``."""
    methods = picker.methods
    words = [Path(picker.query.name).stem, methods[column % len(methods)].extractor] if picker.query else ["images"]
    return "_".join("".join(letter if letter.isalnum() or letter in "-." else "-" for letter in word) for word in words)


class _Lane:
    """A thread that does one thing after the other; it starts with the first."""

    def __init__(self, name: str):
        self._name = name
        self._jobs: Queue[Callable[[], object]] = Queue(_WAITING)
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, job: Callable[[], object]) -> None:
        """Do it when all before it is done; dropped if too much waits."""
        with self._started:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        with contextlib.suppress(Full):
            self._jobs.put_nowait(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:
                # The next one may work.
                logging.getLogger(__name__).exception("the query picker failed")


class _Images:
    """JPEGs by the keys that `state_of` gives: ``row-12``, ``large-row-12``, ``large-file-…``, ``why-3-query``."""

    def __init__(self, picker: Picker):
        self._picker = picker

    def get(self, key: str) -> bytes | None:
        """The JPEG, or None where there is none such any more."""
        kind, _, rest = key.partition("-")
        try:
            if kind == "row":
                row = int(rest)
                return thumbnails.get(self._picker.images.paths[row], _THUMBNAIL) if row >= 0 else None
            pixels = self._pixels(kind, rest)
        except (UnreadableImage, ValueError, IndexError):
            return None
        return None if pixels is None else thumbnails.encode(pixels, _LARGE)

    def _pixels(self, kind: str, rest: str) -> np.ndarray | None:
        if kind == "large":
            query = self._query(rest)
            return query and self._picker.pixels(query, whole=True)
        explained, query = self._picker.explained, self._picker.query
        if kind != "why" or explained is None or rest.partition("-")[0] != str(explained.number):
            return None
        # Both on one scale, so that the brighter one says more.
        highest = max(float(explained.why.query_map.max()), float(explained.why.result_map.max()))
        if rest.endswith("-query"):
            return overlaid(self._picker.pixels(query), explained.why.query_map, highest)
        return overlaid(read_image(self._picker.images.paths[explained.id]), explained.why.result_map, highest)

    def _query(self, image: str) -> Query | None:
        with self._picker.lock:
            return next((step.query for step in self._picker.steps if step.query.image == image), None)
