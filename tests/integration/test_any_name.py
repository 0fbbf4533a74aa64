"""File names of any bytes: what is indexed is found, printed, served and shown."""

import io
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from helpers.cli import main as cli
from helpers.cli.common import OK
from helpers.evaluation import builders, protocol_files
from helpers.images.duplicates import audit
from helpers.images.folders import from_folder
from helpers.images.reading import read_image
from helpers.picker.export import grid_png, ranking_csv
from helpers.picker.state import Picker
from helpers.picker.view import PickerView
from helpers.service import server
from helpers.service.application import create_app
from helpers.service.settings import Settings
from helpers.text import clean_text, printable, printable_lines
from helpers.visualization import grids, heatmaps
from helpers.visualization.audit_report import audit_report

pytestmark = [
    pytest.mark.usefixtures("fresh_cache"),
    pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow all bytes in file names"),
]

SUFFIX = b".png"
#: Parts that break formats: markup, formulas, quotes, line breaks, text from right to left, invalid UTF-8.
PARTS = st.sampled_from(
    [b"<script>alert(1)</script>", b"$x$", b"$\\frac{", b"&amp;", b"'", b'"', b"\n", b"\r", b"\r\n", b"\t", b",", b";",
     b" ", b"-", b"=1+1", b"%00", b"\\xe9", b"\xe9", b"\xff\xfe", b"\xed\xa0\xbd", b"\xc0\x80", b"\x1b[31m", b"\x7f",
     "עברית".encode(), "\u202e".encode(), "😀".encode(), "\u2028".encode(), "\ufeff".encode(), "\uffff".encode()]
)  # fmt: skip


def names(limit: int) -> st.SearchStrategy[bytes]:
    """Names of files and folders; those that begin with a dot are hidden, and not indexed."""
    anything = st.lists(PARTS | st.binary(max_size=6) | st.text(max_size=4).map(lambda text: text.encode())).map(
        b"".join
    )
    cut = anything.map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:limit])
    return cut.filter(lambda name: name and not name.startswith(b"."))


#: A class and a file of it.
FILES = st.tuples(names(255), names(255 - len(SUFFIX)))


@contextmanager
def gallery(files, copies=False):
    """A folder with one small image per name: all different, or all the same file."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / os.fsdecode(b"gallery \xe9 $x$ <b>")
        for number, (class_name, name) in enumerate(files):
            path = root / os.fsdecode(class_name) / os.fsdecode(name + SUFFIX)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(0 if copies else number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path, "PNG")
        yield root


def run(*arguments):
    """The bytes that a command prints."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    with redirect_stdout(printed):
        assert cli.main([*map(str, arguments)]) == OK
    printed.flush()
    return printed.buffer.getvalue()


EXAMPLES = [
    (b"caf\xe9", b"\n"),
    (b"caf\\xe9", b"caf\\xe9"),
    (b"<script>$x^$\xff", b"$\\frac{$"),
    (b"x" * 255, b"\xff" * 251),
    (b" ", b"-0"),
    (b"NA", "\u202egpj.😀\ufeff".encode()),
]


# Each example runs eight commands.
@settings(max_examples=8)
@given(st.lists(FILES, min_size=1, max_size=8, unique=True))
@example(EXAMPLES)
def test_commands_print_every_name(files):
    with gallery(files) as root:
        engine = root.parent / "my.engine"
        run("index", root, "-x", "hsv-histogram", "-o", engine)
        paths = {os.fsencode(root) + b"/" + class_name + b"/" + name + SUFFIX for class_name, name in files}
        query = next(iter(from_folder(root).paths))
        search = ("search", query, "-e", engine, "-k", len(files))

        printed = run(*search, "--paths", "-0")
        assert sorted(printed.split(b"\0")) == sorted([b"", *paths]) and all(map(os.path.isfile, paths))
        assert all(read_image(os.fsdecode(path)).shape == (8, 8, 3) for path in printed.split(b"\0")[:-1])

        (found,) = json.loads(run(*search, "--json").decode())
        assert found["query"] == clean_text(str(query))
        table = pd.read_csv(io.BytesIO(run(*search, "--csv")), keep_default_na=False, dtype={"class_name": str})
        for column in ("key", "path", "class_name"):
            assert table[column].tolist() == [result[column] for result in found["results"]], column
        assert sorted(table["path"]) == sorted(clean_text(os.fsdecode(path)) for path in paths)
        assert len(run(*search).splitlines()) == len(files)

        # A key is accepted as it is printed, unless it stands for two files.
        keys = table["key"].tolist()
        if keys.count(keys[0]) == 1:
            run("remove", "-e", engine, "--", keys[0])
            left = run(*search[:-1], max(1, len(files) - 1), "--json") if len(files) > 1 else b"[]"
            assert keys[0] not in [each["key"] for query in json.loads(left) for each in query["results"]]


@contextmanager
def serving(folder):
    """A client of a server that runs in a thread of this process."""
    running = uvicorn.Server(uvicorn.Config(create_app(Settings(folder)), port=0, **server.options("warning")))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join(10)


# Each example starts a server.
@settings(max_examples=6)
@given(st.lists(FILES, min_size=1, max_size=8, unique=True))
@example(EXAMPLES)
def test_the_service_serves_every_name(files):
    with gallery(files) as root:
        engine = root.parent / os.fsdecode(b"caf\xe9.engine")
        run("index", root, "-x", "hsv-histogram", "-o", engine)
        with serving(engine) as client:

            def get(path, **parameters):
                response = client.get(path, params=parameters)
                assert response.status_code == 200, response.text
                return response

            info = json.loads(get("/v1/info").content.decode())
            assert info["name"] == "gallery \\xe9 $x$ <b>" and info["images"] == len(files)
            listed = get("/v1/images", limit=100).json()["images"]
            keys = [printable(os.fsdecode(class_name + b"/" + name + SUFFIX)) for class_name, name in files]
            assert sorted(image["key"] for image in listed) == sorted(keys)
            for image in listed:
                assert get(image["thumbnail"]).headers["content-type"] == "image/jpeg"
                assert get(f"/v1/images/{image['id']}").json() == image
                others = get(f"/v1/search/id/{image['id']}", k=100).json()["results"]
                assert {other["id"] for other in others} == {each["id"] for each in listed} - {image["id"]}
            for each in info["classes"]:
                found = get("/v1/images", limit=100, class_name=each["name"]).json()
                assert {image["class_name"] for image in found["images"]} == {each["name"]}


class Text(HTMLParser):
    """The text and the elements of a page."""

    def __init__(self, page):
        super().__init__()
        self.parts, self.elements = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.parts += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data):
        self.parts.append(data)


# Constrained layout takes most of a second per figure.
@settings(max_examples=2)
@given(st.lists(FILES, min_size=2, max_size=3, unique=True))
@example(EXAMPLES[:3])
@example(EXAMPLES[4:])
def test_figures_and_pages_show_every_name(files):
    with gallery(files, copies=True) as root:
        images = from_folder(root)
        page = audit_report(audit(images))
        shown = Text(page.encode().decode())
        assert "script" not in shown.elements and {printable(key) for key in images.keys} <= set(shown.parts)

        size = len(images.class_names)
        assert_drawable(grids.image_grid(images, range(len(images))))
        assert_drawable(heatmaps.confusion_map(np.eye(size, size + 1, dtype=int), images.class_names))

        picker = Picker(images, ["hsv-histogram"], k=2).choose(0).search()
        view = PickerView(picker)
        state = json.loads(view.state)
        assert state["query"]["name"] == printable_lines(images.keys[0])
        assert [each["key"] for each in state["page"]["thumbnails"]] == [printable_lines(key) for key in images.keys]
        assert state["columns"][0]["results"] and json.dumps(state, ensure_ascii=False).encode()
        assert grid_png(picker, dpi=20).startswith(b"\x89PNG")
        table = pd.read_csv(io.BytesIO(ranking_csv(picker).encode()), keep_default_na=False)
        assert table["key"].tolist() == [clean_text(result.key) for result in picker.columns[0].results]
        for name in state["page"]["class_names"]:
            assert picker.filter(name).message is None and len(picker.listed)
        # The page requests the image of a query by the key in its state.
        other = root.parent / os.fsdecode(b"caf\xe9.png")
        picker.choose_path(shutil.copy(images.paths[0], other))
        sent = []
        view.send = lambda message, buffers: sent.append((message["found"], len(buffers)))
        view._send_images([json.loads(view.state)["query"]["image"]])
        assert sent == [(True, 1)]
        view.close()

        protocol = builders.query_gallery(images, [0], np.arange(len(images)), "names")
        loaded = protocol_files.load(protocol_files.save(protocol, root.parent / "names.json"))
        assert loaded.keys == protocol.keys and loaded.class_names == protocol.class_names


def assert_drawable(figure: Figure):
    for kind in ("svg", "pdf"):
        figure.savefig(content := io.BytesIO(), format=kind, dpi=20)
        assert content.getvalue()
