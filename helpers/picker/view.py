"""The query picker as a notebook widget: it shows a `Picker` and passes user actions to it.

The page, ``static/picker.js``, receives the state as one JSON object, requests images by their keys, and sends actions,
each a method of the picker. Slow actions run in threads, so neither the page nor the kernel blocks. The notebook also
keeps a static image of the state, for readers without a kernel.
"""

import base64
import contextlib
import io
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from queue import Full, Queue
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from helpers import extras
from helpers.features.explain import METHODS
from helpers.images import thumbnails
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, read_image, upright_size
from helpers.picker import export
from helpers.picker.parts import MAX_WEIGHT
from helpers.picker.state import ACTIONS, SLOW, Column, Picker
from helpers.text import clean_values, printable_lines
from helpers.visualization import web_modules
from helpers.visualization.heatmaps import overlay

with extras.importing("notebooks", "anywidget", "traitlets", "IPython"):
    import anywidget
    import traitlets
    from IPython.display import display

_LOGGER = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
#: The longest side in pixels of thumbnails, of the query and the explanation, and of an enlarged result.
_THUMBNAIL, _LARGE, _ENLARGED = 256, 480, 1280
#: Pixels per inch at which the static image is shown, and with which it is drawn.
_SCREEN_DPI, _PRINT_DPI = 80, 150
#: Limits: images per message, waiting jobs per thread, and views of one widget whose actions are counted.
_MAX_IMAGES, _MAX_JOBS, _MAX_VIEWS = 600, 200, 20

_WIDGETS: "WeakKeyDictionary[Picker, PickerView]" = WeakKeyDictionary()


def show(picker: Picker) -> None:
    """Show a picker in a notebook, with an image of it for readers without a kernel."""
    # One widget even if the cell runs again: widgets live as long as their kernel.
    if picker not in _WIDGETS:
        _WIDGETS[picker] = PickerView(picker)
    display(_WIDGETS[picker])
    data, metadata = static_image(picker)
    if data:
        display(data, metadata=metadata, raw=True)


def static_image(picker: Picker) -> tuple[dict, dict]:
    """A PNG of the state as a MIME bundle with its metadata; empty if the query cannot be read.

    It is an output of its own: notebooks prefer the widget's type in one bundle, even if no kernel runs. The styles of
    the widget hide the image while the widget is shown.
    """
    if picker.needs_search:
        picker.search()
    # The widget shows the error if the query cannot be read.
    with contextlib.suppress(UnreadableImage):
        image = export.grid_png(picker, _PRINT_DPI)
        width = round(Image.open(io.BytesIO(image)).width * _SCREEN_DPI / _PRINT_DPI)
        data = {"image/png": base64.b64encode(image).decode(), "text/plain": repr(picker)}
        return data, {"image/png": {"alt": export.grid_description(picker), "width": width}}
    return {}, {}


class PickerView(anywidget.AnyWidget):
    """The widget of one picker. It also shows changes that code makes."""

    _esm = web_modules.bundle(_STATIC / "picker.js")
    # The rules of a notebook for buttons must not win over the shared ones.
    _css = web_modules.theme().replace(":where(.lookalike)", ".lookalike") + (_STATIC / "picker.css").read_text("utf-8")
    #: `state_of` as JSON, and the number of the last finished action of each view.
    state = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, picker: Picker):
        self.picker = picker
        self._pushing = threading.Lock()
        self._slow_jobs, self._image_jobs = _Worker("picker search"), _Worker("picker images")
        self._preparing = _Worker("picker explanations")
        self._done: OrderedDict[str, int] = OrderedDict()
        super().__init__(state=self._as_json())
        picker.listeners.append(self._push)
        self.on_msg(self._received)

    def __repr__(self) -> str:
        return repr(self.picker)

    def _repr_mimebundle_(self, **arguments):
        """The widget, and the text that a saved notebook keeps; the image is another output."""
        bundle = super()._repr_mimebundle_(**arguments)
        if self.picker.needs_search:
            self.picker.search()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return data | {"text/plain": repr(self)}, metadata

    def close(self) -> None:
        """Remove the widget from the page; the picker stays usable."""
        if self._push in self.picker.listeners:
            self.picker.listeners.remove(self._push)
        super().close()

    def _push(self) -> None:
        # Two threads that set a trait at the same time would mix up their messages.
        with self._pushing, self.picker.lock:
            self.state = self._as_json()

    def _as_json(self) -> str:
        return json.dumps(clean_values(state_of(self.picker) | {"done": dict(self._done)}, printable_lines))

    def _received(self, _, message: dict, buffers: Sequence) -> None:
        """Handle a message of the page: an action, or a request for images or a file. Others are ignored."""
        match message:
            case {"action": str(action), "arguments": dict(given), "view": str(view), "number": int(number)} if (
                action in ACTIONS
            ):
                self._act(action, given, buffers, (view, number))
            case {"images": [*keys]}:
                self._image_jobs.put(lambda: self._send_images(keys))
            case {"export": "png"}:
                self._slow_jobs.put(lambda: self._send_file("png"))
            case {"export": "csv", "column": 0 | 1 as column}:
                self._slow_jobs.put(lambda: self._send_file("csv", column))

    def _act(self, action: str, given: dict, buffers: Sequence, ticket: tuple[str, int]) -> None:
        values = {name: given[name] for name in ACTIONS[action] if name in given}
        if "content" in ACTIONS[action]:
            values["content"] = bytes(buffers[0]) if buffers else b""

        def act() -> None:
            self._guarded(lambda: getattr(self.picker, action)(**values))
            if self.picker.needs_search:
                self._slow_jobs.put(self._search)
            self._finish(*ticket)

        if action in SLOW:
            self._slow_jobs.put(act)
        else:
            act()

    def _finish(self, view: str, number: int) -> None:
        """Report to a view that its action is done, or that its search has begun."""
        with self._pushing:
            self._done[view] = max(number, self._done.pop(view, 0))
            while len(self._done) > _MAX_VIEWS:
                self._done.popitem(last=False)
        self._push()

    def _search(self) -> None:
        # Several changes during a search need one more search, not one each.
        while self.picker.needs_search:
            self._guarded(self.picker.search)
        self._preparing.put(self.picker.prepare_why)

    def _guarded(self, act: Callable[[], object]) -> None:
        """Run it; show and log an error that no user action should cause."""
        try:
            act()
        except UnreadableImage as error:
            self.picker.report_error(str(error))
        except Exception as error:
            _LOGGER.exception("the query picker failed")
            self.picker.report_error(
                f"Unexpected error ({type(error).__name__}: {error}). Search again, or restart the kernel."
            )

    def _send_images(self, keys: list) -> None:
        for key in keys[:_MAX_IMAGES]:
            content = _jpeg(self.picker, str(key))
            self.send({"image": key, "found": content is not None}, [content] if content is not None else [])

    def _send_file(self, kind: str, column: int = 0) -> None:
        def send() -> None:
            picker = self.picker
            content = export.ranking_csv(picker, column).encode() if kind == "csv" else export.grid_png(picker, dpi=110)
            self.send({"file": f"{_file_name(picker, column)}.{kind}", "kind": kind}, [content])

        self._guarded(send)


def state_of(picker: Picker) -> dict:
    """The state that the page shows, as plain JSON, with images by their keys."""
    query, step, explained, images = picker.query, picker.step, picker.explained, picker.images
    return {
        "set": {"name": images.name, "size": len(images)},
        "page": {
            "number": picker.page, "count": picker.pages, "listed": len(picker.listed),
            "class_name": picker.class_name, "class_names": picker.class_names,
            "thumbnails": [
                {"row": row, "class_name": images.class_name(row), "key": images.keys[row], "image": f"row-{row}"}
                for row in picker.rows
            ],
        },
        "query": query and {
            "title": picker.title, "name": query.name, "class_name": picker.class_of(query), "row": query.row,
            "image": query.image and f"large-{query.image}", "crop": query.crop and query.crop._asdict(),
            "text": query.text, "parts": [
                part._asdict() | {"sign": part.sign, "short_name": part.short_name} for part in picker.parts
            ],
            "max_weight": MAX_WEIGHT, "objects": _objects(picker), "searched_objects": picker.objects is not None,
            "is_combined": picker.is_combined, "given_class": query.given_class,
        },
        "text_hint": picker.text_hint,
        "undo": picker.undoable,
        "history": {"position": picker.history.position, "length": len(picker.history.steps)},
        "extractors": picker.extractors, "indexes": picker.indexes, "rerankers": picker.rerankers,
        "possible": [picker.rerankers_for(method) for method in picker.methods],
        "method": vars(picker.methods[0]), "other": vars(picker.methods[1]) if picker.other else None,
        "k": picker.k, "limit": picker.limit,
        "columns": [_column(column, images) for column in picker.columns],
        "marks": {str(id): good for id, good in step.marks.items()} if step else {},
        "applied": step is not None and bool(step.applied),
        "pending": step is not None and step.marks != step.applied,
        "explained": explained and {
            "id": explained.id, "column": explained.column, "key": images.keys[explained.id],
            "similarity": explained.why.similarity, "method": explained.why.method,
            "shows": METHODS[explained.why.method], "note": explained.note,
            "images": [f"why-{explained.number}-query", f"why-{explained.number}-result"],
        },
        "searching": picker.needs_search, "progress": picker.progress,
        "message": picker.message and picker.message._asdict(),
    }  # fmt: skip


def _objects(picker: Picker) -> list[dict]:
    """The objects of the query image, and other chosen boxes, with their numbers among the chosen boxes."""
    chosen = () if picker.query is None else picker.query.boxes
    found = {box: (name, score) for box, name, score in picker.objects or ()}
    shown = {**dict.fromkeys(chosen, ("part", None)), **found}
    # Small ones last, so that they are above large ones.
    return [
        {
            "box": box[:4], "place": box.place._asdict(), "class_name": name, "score": score,
            "part": chosen.index(box) if box in chosen else None,
        }
        for box, (name, score) in sorted(shown.items(), key=lambda item: -item[0].width * item[0].height)
    ]  # fmt: skip


def _column(column: Column, images: ImageSet) -> dict:
    results = [
        vars(result)
        | {"image": f"row-{result.id}", "name": images.paths[result.id].name, "ratio": _ratio(images.paths[result.id])}
        for result in column.results
    ]
    return {"method": vars(column.method), "note": column.note, "seconds": column.seconds, "results": results}


@lru_cache(maxsize=4096)
def _ratio(path: Path) -> float | None:
    """Width / height of an image; None if it cannot be read."""
    try:
        width, height = upright_size(path)
    except UnreadableImage:
        return None
    return width / height


def _file_name(picker: Picker, column: int) -> str:
    """A file name that is valid on all systems, such as ``eagle_hsv-histogram``."""
    query, methods = picker.query, picker.methods
    words = ["images"]
    if query is not None:
        words = [Path(query.name).stem, query.text[:60], methods[column % len(methods)].extractor]
    return "_".join(re.sub(r"[^\w.-]|_", "-", word) for word in words if word)


class _Worker:
    """A daemon thread that runs jobs one after another."""

    def __init__(self, name: str):
        self._jobs: Queue[Callable[[], object]] = Queue(_MAX_JOBS)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, job: Callable[[], object]) -> None:
        """Run a job after the earlier ones; it is dropped if too many are waiting."""
        with contextlib.suppress(Full):
            self._jobs.put_nowait(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:
                _LOGGER.exception("the query picker failed")


def _jpeg(picker: Picker, key: str) -> bytes | None:
    """The image with a key of `state_of`, such as ``row-12``, ``large-row-12`` or ``why-3-query``; None if missing.

    ``view-12`` is the enlarged image of a result.
    """
    kind, _, rest = key.partition("-")
    try:
        if kind in ("row", "view") and rest.isdecimal():
            path = picker.images.paths[int(rest)]
            return thumbnails.get(path, _THUMBNAIL) if kind == "row" else thumbnails.render(path, _ENLARGED)
        pixels = {"large": _query_pixels, "why": _explanation_pixels}[kind](picker, rest)
    except (UnreadableImage, ValueError, LookupError):
        return None
    return None if pixels is None else thumbnails.encode(pixels, _LARGE)


def _query_pixels(picker: Picker, image: str) -> np.ndarray | None:
    with picker.lock:
        query = next((step.query for step in picker.history.steps if printable_lines(step.query.image) == image), None)
    return None if query is None else picker.pixels(query, whole=True)


def _explanation_pixels(picker: Picker, rest: str) -> np.ndarray | None:
    explained, query = picker.explained, picker.query
    if explained is None or query is None or rest.partition("-")[0] != str(explained.number):
        return None
    # One scale for both maps, so that their brightness can be compared.
    why = explained.why
    highest = max(float(why.query_map.max()), float(why.result_map.max()))
    if rest.endswith("-query"):
        return overlay(picker.pixels(query), why.query_map, highest)
    return overlay(read_image(picker.images.paths[explained.id]), why.result_map, highest)
