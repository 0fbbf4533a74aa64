"""The page of the service in a real browser, with a real service over images of the sample."""

import json
import re
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.service.service_process import ServiceProcess

playwright_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED in a browser: Playwright is missing")
expect = playwright_api.expect

#: Name of a class and a file that would run as a script if it were inserted as HTML.
HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = ("birds", "flowers", "fruit", "instruments")
KEY = "a key for this test"
PAGE = 24
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
#: Chromium logs each error response. Tests that cause one expect it.
ERROR_RESPONSE = "the server responded with a status of"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    """A folder with four classes of the sample, and one with a hostile name."""
    folder = tmp_path_factory.mktemp("gallery")
    photos = samples.photos()
    for name in CLASSES:
        shutil.copytree(photos.root / "photos" / name, folder / name)
    (folder / HOSTILE).mkdir()
    shutil.copy(photos.paths[-1], folder / HOSTILE / f"{HOSTILE}.jpg")
    return folder


@pytest.fixture(scope="module")
def outside() -> Path:
    """An image that is not in the gallery."""
    return samples.photos().root / "photos" / "mammals" / "zebra.jpg"


@pytest.fixture(scope="module")
def start(gallery, tmp_path_factory):
    """``start(key=None)`` → the URL of a new service over the gallery."""
    started = []

    def start_(key: str | None = None) -> str:
        folder = tmp_path_factory.mktemp("engine") / "my.engine"
        Engine("hsv-histogram", "exact:cosine").fit(from_folder(gallery)).save(folder)
        started.append(ServiceProcess(folder, key=key).start())
        return f"{started[-1].url}/"

    yield start_
    for service in started:
        service.stop()


@pytest.fixture(scope="module")
def service(start) -> str:
    """A service that accepts changes, shared by the tests. They undo their changes."""
    return start()


@pytest.fixture(scope="module")
def service_with_key(start) -> str:
    """A service that accepts changes with a key."""
    return start(key=KEY)


@pytest.fixture
def open_service(open_page, service):
    """``open_service(path="", **open_page's)`` → the page, with images on it."""

    def open_(path: str = "", **options):
        page = open_page(service + path, **options)
        # Registered early: Playwright may start to listen only after the first key press.
        page.on("filechooser", lambda chooser: None)
        expect(page.locator(".card").first).to_be_visible()
        return page

    return open_


def test_start_shows_images_of_the_gallery_in_random_order(open_service, service, check_accessibility, screenshots):
    page = open_service()
    expect(page).to_have_title("Lookalike")
    expect(page.locator("#about")).to_contain_text("hsv-histogram · exact:cosine")
    first = _ids(page)
    check_accessibility(page)
    _shoot(page, screenshots, "start")
    page.click("#shuffle")
    expect(page.locator(f'.card:first-child[data-id="{first[0]}"]')).to_have_count(0)
    assert _ids(page) != first

    _scroll_to_the_end(page)
    total = _get(service, "v1/info")["images"]
    assert sorted(_ids(page)) == list(range(total)), "each image once"
    expect(page.locator("#end")).to_have_text("No more images.")


def test_upload_finds_the_image_and_back_restores_the_position(
    open_service, service, gallery, check_accessibility, screenshots
):
    page = open_service()
    image = next((gallery / "birds").iterdir())
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(image)
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {image.name}")
    expect(page.locator(".file-name").first).to_have_text(image.name)
    expect(page.locator(".score").first).to_have_text("1.000")
    assert "1 means no difference" in page.locator(".score").first.get_attribute("title")
    assert page.locator("#query-image").evaluate("image => image.naturalWidth") == Image.open(image).width
    check_accessibility(page)
    _shoot(page, screenshots, "results")

    sent = _requests(page)
    page.locator(".card").last.scroll_into_view_if_needed()
    expect(page.locator(".card").nth(PAGE)).to_be_attached()
    assert [url for url in sent if "/v1/search" in url][0] == f"{service}v1/search/vector", "not uploaded again"
    expect(page.locator("#count")).to_contain_text(re.compile(r"\d+ images shown"))
    shown = _ids(page)
    assert len(set(shown)) == len(shown) > PAGE
    scores = [float(text) for text in page.locator(".score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)

    chosen = page.locator(".card").nth(20)
    chosen.scroll_into_view_if_needed()
    _settle(page)
    scroll, name = page.evaluate("scrollY"), chosen.locator(".file-name").text_content()
    number = int(chosen.get_attribute("data-id"))
    chosen.locator(".tile").click()
    expect(page).to_have_url(f"{service}#id={number}")
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {name}")
    assert number not in _ids(page), "the query is not a result"
    assert page.evaluate("scrollY") == 0
    found = _ids(page)
    assert found[:PAGE] == [result["id"] for result in _get(service, f"v1/search/id/{number}?k={PAGE}")["results"]]

    page.go_back()
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {image.name}")
    assert _ids(page)[: len(shown)] == shown
    assert abs(page.evaluate("scrollY") - scroll) <= 2
    page.go_forward()
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {name}")
    assert _ids(page)[:PAGE] == found[:PAGE]
    page.reload()
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {name}")
    expect(page.locator(".card")).not_to_have_count(0)


def test_an_upload_survives_a_reload_and_a_link_elsewhere_says_so(open_service, open_page, outside):
    page = open_service()
    page.set_input_files("#file", outside)
    expect(page.locator("#results-title")).to_have_text("Images that look like zebra.jpg")
    shown = _ids(page)
    page.reload()
    expect(page.locator("#results-title")).to_have_text("Images that look like zebra.jpg")
    expect(page.locator(".card").first).to_be_visible()
    assert _ids(page)[:PAGE] == shown[:PAGE]
    assert page.locator("#query-image").evaluate("image => image.complete && image.naturalWidth") > 0
    other = open_page(page.url)
    expect(other.locator("#error-text")).to_contain_text("uploaded in another browser")
    expect(other.locator("#results-title")).to_have_text("Or start from one of these")
    expect(other.locator(".card")).not_to_have_count(0)


def test_drop_of_a_file_anywhere_and_of_a_result(open_service, gallery, service):
    page = open_service()
    image = next((gallery / "fruit").iterdir())
    data = _data_transfer(page, image)
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    expect(page.locator("#drop-overlay")).to_be_visible()
    page.dispatch_event("#grid", "dragover", {"dataTransfer": data})
    page.dispatch_event("#grid", "drop", {"dataTransfer": data})
    expect(page.locator("#drop-overlay")).to_be_hidden()
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {image.name}")
    expect(page.locator(".file-name").first).to_have_text(image.name)

    _settle(page)
    second = page.locator(".card").nth(1)
    number = second.get_attribute("data-id")
    second.locator(".tile").drag_to(page.locator("#drop"))
    expect(page).to_have_url(f"{service}#id={number}")


def test_paste_of_an_image_of_text_and_of_a_url(open_service, gallery):
    page = open_service()
    image = next((gallery / "flowers").iterdir())
    page.evaluate(_PASTE, _data_transfer(page, image))
    expect(page.locator("#results-title")).to_contain_text("look like")
    expect(page.locator(".file-name").first).to_have_text(image.name)
    page.evaluate(_PASTE, _text_transfer(page, "a"))
    expect(page.locator("#error-text")).to_have_text("The pasted or dropped data contains no image.")
    page.click("#error-close")
    expect(page.locator("#error")).to_be_hidden()
    page.evaluate(_PASTE, _text_transfer(page, "https://example.org/a.jpg"))
    expect(page.locator("#error-text")).to_contain_text("does not download images")


def test_crop_by_mouse_keys_and_numbers(open_service, gallery, tmp_path, check_accessibility, screenshots):
    # The left half is a bird, the right half an instrument.
    bird, other = (sorted((gallery / name).iterdir())[0] for name in ("birds", "instruments"))
    halves = [np.asarray(Image.open(path).convert("RGB").resize((200, 200))) for path in (bird, other)]
    both = tmp_path / "both.png"
    Image.fromarray(np.hstack(halves)).save(both)
    page = open_service()
    page.set_input_files("#file", both)
    expect(page.locator("#results-title")).to_contain_text("both.png")
    expect(page.locator("#stage")).to_have_attribute("style", re.compile("ratio: 2"))

    _settle(page)
    stage = page.locator("#stage").bounding_box()
    corners = [
        (stage["x"] + x * stage["width"], stage["y"] + y * stage["height"]) for x, y in ((0.5, 0.001), (0.999, 0.999))
    ]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=6)
    with page.expect_request(re.compile("/v1/search")) as request_info:
        page.mouse.up()
    sent = dict(re.findall(r"(left|top|width|height)=([\d.]+)", request_info.value.url))
    assert [float(sent[name]) for name in ("left", "top", "width", "height")] == pytest.approx(
        [0.5, 0, 0.5, 1], abs=0.02
    )
    expect(page.locator("#results-title")).to_have_text("Images that look like a part of both.png")
    expect(page.locator(".file-name").first).to_have_text(other.name)
    check_accessibility(page)
    _shoot(page, screenshots, "crop")

    page.locator("#crop").focus()
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("[name=left]")).to_have_value("0")
    expect(page.locator("#count")).to_contain_text("left 0 %, top 0 %, width 50 %")
    page.keyboard.press("Enter")
    expect(page.locator(".file-name").first).to_have_text(bird.name)
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("[name=width]")).to_have_value("52")

    page.click("summary")
    page.fill("[name=left]", "50")
    page.fill("[name=width]", "50")
    page.click("#crop-form [type=submit]")
    expect(page.locator(".file-name").first).to_have_text(other.name)
    assert _box(page) == pytest.approx([0.5, 0, 0.5, 1], abs=0.02)

    # Drag the lower right corner up and to the left.
    page.locator(".handle.se").hover()
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.75 * stage["width"], stage["y"] + 0.5 * stage["height"], steps=4)
    page.mouse.up()
    expect(page.locator("[name=height]")).to_have_value(re.compile("49|50|51"))
    assert _box(page) == pytest.approx([0.5, 0, 0.25, 0.5], abs=0.02)

    page.click("#crop-reset")
    expect(page.locator("#results-title")).to_have_text("Images that look like both.png")
    expect(page.locator("#crop")).to_be_hidden()
    page.go_back()
    expect(page.locator("#results-title")).to_have_text("Images that look like a part of both.png")
    page.go_back()
    expect(page.locator("#results-title")).to_have_text("Images that look like both.png")


def test_crop_of_a_gallery_image_is_a_link(open_service, service):
    page = open_service("#id=3&crop=0.1,0.1,0.5,0.5")
    expect(page.locator("#results-title")).to_contain_text("a part of")
    assert _box(page) == pytest.approx([0.1, 0.1, 0.5, 0.5], abs=0.01)
    assert 3 not in _ids(page)


def test_class_filter_needs_no_second_upload(open_service, service, outside):
    page = open_service()
    counts = {each["name"]: each["count"] for each in _get(service, "v1/info")["classes"]}
    assert f"birds ({counts['birds']})" in page.locator("#class option").all_text_contents()
    page.select_option("#class", "birds")
    expect(page.locator("#results-title")).to_have_text("All images of class birds")
    assert set(page.locator(".class-name").all_text_contents()) == {"birds"}
    page.set_input_files("#file", outside)
    expect(page.locator("#results-title")).to_have_text("Images that look like zebra.jpg")
    expect(page.locator("#class")).to_have_value("")
    everything = _ids(page)

    sent = _requests(page)
    page.select_option("#class", "fruit")
    expect(page.locator("#summary")).to_contain_text("class fruit only")
    _scroll_to_the_end(page)
    assert page.locator(".class-name").all_text_contents() == ["fruit"] * counts["fruit"]
    assert {url for url in sent if "/v1/search" in url} == {f"{service}v1/search/vector"}
    page.go_back()
    expect(page.locator("#class")).to_have_value("")
    assert _ids(page)[:PAGE] == everything[:PAGE]


def test_keyboard_reaches_everything(open_service, service, outside):
    page = open_service()
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    expect(page.locator("#skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator(".card-link").first).to_be_focused()
    ids = _ids(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    below = _focused(page)
    # The page may have loaded more cards since.
    shown = page.locator(".card").evaluate_all("cards => cards.map(card => [Number(card.dataset.id), card.offsetTop])")
    ids, tops = [id for id, _ in shown], dict(shown)
    rows = sorted(set(tops.values()))
    assert (tops[ids[1]], tops[below]) == (rows[0], rows[1]), "the next row"
    position = ids.index(below)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px", "the focus is visible"

    page.keyboard.press("Space")
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer-search")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-image")).to_have_attribute("src", f"v1/images/{ids[position + 1]}/file")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    assert _focused(page) == below, "the focus is restored"
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{service}#id={below}")
    expect(page.locator("#results-title")).to_be_focused()
    page.keyboard.press("ArrowDown")
    results = _ids(page)
    assert _focused(page) == results[0]
    for _ in range(PAGE):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".card").nth(PAGE)).to_be_attached()
    page.keyboard.press("Home")
    assert _focused(page) == results[0]
    page.keyboard.press("Tab")
    expect(page.locator(".enlarge").first).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".add-part").first).to_be_focused()
    for control in (".card .mark-good", ".card .mark-bad", ".pick input"):
        page.keyboard.press("Tab")
        expect(page.locator(control).first).to_be_focused()
    page.keyboard.press("Tab")
    assert _focused(page) is None, "one Tab leaves the images"

    page.keyboard.press("c")
    expect(page.locator("#crop")).to_be_focused()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator("#results-title")).to_contain_text("a part of")
    page.keyboard.press("Escape")
    expect(page.locator("#results-title")).not_to_contain_text("a part of")
    page.keyboard.press("/")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(outside)
    expect(page.locator("#results-title")).to_have_text("Images that look like zebra.jpg")

    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.locator("#help-keys").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(page.locator("#crop")).to_be_hidden()
    # A headless browser does not handle Alt and an arrow key.
    for title in ("Images that look like", "a part of", "Images that look like", "Or start from one of these"):
        page.go_back()
        expect(page.locator("#results-title")).to_contain_text(title)
    expect(page.locator("#results-title")).to_have_text("Or start from one of these")
    assert _focused(page) == below, "back restores the focus"


def test_viewer_help_and_adding_are_accessible(open_service, check_accessibility, screenshots):
    page = open_service("#id=7")
    page.locator(".card").nth(2).hover()
    page.locator(".enlarge").nth(2).click()
    expect(page.locator("#viewer-image:not(.loading)")).to_be_visible()
    expect(page.locator("#viewer-facts")).to_contain_text("rank 3")
    check_accessibility(page)
    _shoot(page, screenshots, "viewer")
    page.keyboard.press("Escape")
    page.click("#open-help")
    check_accessibility(page)
    _shoot(page, screenshots, "help")
    page.click("#help-close")
    page.click("#open-add")
    check_accessibility(page)
    _shoot(page, screenshots, "adding")


def test_an_image_is_added_found_and_removed(open_service, service, outside):
    before = _get(service, "v1/info")["images"]
    page = open_service()
    page.set_input_files("#file", outside)
    expect(page.locator("#results-title")).to_contain_text("zebra.jpg")
    expect(page.locator(".score", has_text="1.000")).to_have_count(0)
    page.click("#open-add")
    expect(page.locator("#add-current")).to_contain_text("zebra.jpg")
    page.fill("#add-class", "striped")
    page.click("#add-submit")
    expect(page.locator("#add-done")).to_contain_text("1 image was added.")
    assert _get(service, "v1/info")["images"] == before + 1
    page.set_input_files("#add-files", outside)
    page.click("#add-submit")
    expect(page.locator("#add-done")).to_contain_text("1 image was already in the gallery.")
    expect(page.locator("#add-done")).not_to_contain_text("added")
    assert _get(service, "v1/info")["images"] == before + 1
    page.get_by_role("button", name="Search with it").click()
    expect(page).to_have_url(re.compile(r"#id=\d+$"))
    expect(page.locator("#about")).to_contain_text(f"{before + 1} images")

    page.set_input_files("#file", outside)
    expect(page.locator(".score").first).to_have_text("1.000")
    expect(page.locator(".class-name").first).to_have_text("striped")
    expect(page.locator("#class")).to_contain_text("striped (1)")
    number = _ids(page)[0]
    page.locator(".card").first.hover()
    page.locator(".enlarge").first.click()
    page.click("#viewer-remove")
    page.click("#viewer-keep")
    page.click("#viewer-remove")
    page.click("#viewer-confirm [type=submit]")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(f'.card[data-id="{number}"]')).to_have_count(0)
    expect(page.locator("#about")).to_contain_text(f"{before} images")
    assert _get(service, "v1/info")["images"] == before


def test_changes_need_the_key_and_do_not_store_it(service_with_key, open_page, outside):
    page = open_page(service_with_key, allowed=[ERROR_RESPONSE + " 401"])
    page.click("#open-add")
    page.set_input_files("#add-files", outside)
    page.fill("#add-dialog [name=key]", "another key")
    page.click("#add-submit")
    expect(page.locator("#add-error")).to_have_text("zebra.jpg: The key is missing or wrong.")
    page.fill("#add-dialog [name=key]", KEY)
    page.click("#add-submit")
    expect(page.locator("#add-done")).to_contain_text("1 image was added.")
    page.get_by_role("button", name="Search with it").click()
    expect(page).to_have_url(re.compile(r"#id=\d+$"))
    added = int(re.search(r"id=(\d+)", page.url)[1])
    page.set_input_files("#file", outside)
    expect(page.locator(f'.card:first-child[data-id="{added}"]')).to_be_visible()
    page.locator(".card").first.hover()
    page.locator(".enlarge").first.click()
    page.click("#viewer-remove")
    expect(page.locator("#viewer [name=key]")).to_have_value(KEY)
    page.click("#viewer-confirm [type=submit]")
    expect(page.locator(f'.card[data-id="{added}"]')).to_have_count(0)
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, history.state, document.cookie])")
    assert KEY not in stored + page.url


def test_hostile_uploads_show_an_error_and_change_nothing(open_service, gallery, tmp_path, service):
    page = open_service(allowed=[ERROR_RESPONSE])
    page.set_input_files("#file", next((gallery / "birds").iterdir()))
    expect(page.locator(".score").first).to_have_text("1.000")
    shown, url = _ids(page), page.url
    whole = next((gallery / "birds").iterdir()).read_bytes()
    files = {
        "script.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "text.jpg": b"no image at all",
        "half.jpg": whole[: len(whole) // 3],
        f"{HOSTILE}.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "empty.png": b"",
        "large.png": bytes(_get(service, "v1/info")["limits"]["body_bytes"] + 1),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        page.set_input_files("#file", path)
        expect(page.locator("#error")).to_be_visible()
        message = page.locator("#error-text").text_content()
        assert len(message) > 15 and "Traceback" not in message, message
        page.click("#error-close")
    assert (_ids(page), page.url) == (shown, url)


def test_names_are_text_and_not_markup(open_service):
    page = open_service()
    page.on("dialog", lambda dialog: pytest.fail(f"a name ran as a script: {dialog.message}"))
    page.select_option("#class", HOSTILE)
    expect(page.locator(".class-name").first).to_have_text(HOSTILE)
    expect(page.locator(".file-name").first).to_have_text(f"{HOSTILE}.jpg")
    page.locator(".card").hover()
    page.locator(".enlarge").click()
    expect(page.locator("#viewer-title")).to_have_text(f"{HOSTILE}.jpg")
    page.click("#viewer-search")
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {HOSTILE}.jpg")
    page.goto(page.url.split("#")[0] + "#id=1&class=" + HOSTILE)
    expect(page.locator("#summary")).to_contain_text(f"class {HOSTILE} only")
    assert page.locator("img[onerror]").count() == 0


def test_a_busy_service_is_tried_again_with_a_message(open_service):
    page = open_service(allowed=[ERROR_RESPONSE + " 429"])
    body = json.dumps({"code": "too_many_requests", "message": "Too many requests.", "details": []})
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "body": body}
    # The first response is a fake, the next one is real.
    page.route("**/v1/search/**", lambda route: route.fulfill(**busy), times=1)
    page.locator(".tile").first.click()
    expect(page.locator("#hint")).to_have_text("The service is busy. Trying again in 1 second …")
    expect(page.locator("#progress")).to_be_visible()
    assert page.locator(".card").count() and not page.locator(".skeleton").count(), "the former images stay"
    expect(page.locator("#results-title")).to_contain_text("Images that look like")
    expect(page.locator("#hint")).to_be_empty()


def test_an_unreachable_service_can_be_tried_again(open_service):
    page = open_service(allowed=["net::ERR_INTERNET_DISCONNECTED"])
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.locator(".tile").first.click()
    expect(page.locator("#error-text")).to_contain_text("can’t be reached")
    page.context.set_offline(False)
    page.click("#error-again")
    expect(page.locator("#results-title")).to_contain_text("Images that look like")
    expect(page.locator("#error")).to_be_hidden()


def test_a_start_that_failed_can_be_tried_again(open_page, service):
    page = open_page(allowed=["net::ERR_FAILED"])
    page.route("**/v1/images?*", lambda route: route.abort())
    page.goto(service)
    expect(page.locator("#error-text")).to_contain_text("can’t be reached")
    page.unroute("**/v1/images?*")
    waiting = []
    page.route("**/v1/images?*", lambda route: waiting.append(route) if len(waiting) < 6 else route.continue_())
    page.click("#error-again")
    # Until the six requests for the first images have ended, gray tiles are in their places.
    tiles = page.locator("#grid .skeleton")
    expect(tiles.nth(3)).to_be_in_viewport()
    assert tiles.nth(3).bounding_box()["height"] > 80
    for route in waiting:
        route.continue_()
    expect(page.locator(".card")).not_to_have_count(0)
    expect(tiles).to_have_count(0)


def test_a_link_to_a_missing_image_leads_to_the_start(open_service):
    page = open_service("#id=123456", allowed=[ERROR_RESPONSE + " 404"])
    expect(page.locator("#error-text")).to_contain_text("123456")
    expect(page.locator("#results-title")).to_have_text("Or start from one of these")


def test_phone(open_service, outside, check_accessibility, screenshots):
    page = open_service(**PHONE)
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, "phone-start")
    expect(page.locator("#camera")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.tap("#camera")
    chooser.value.set_files(outside)
    expect(page.locator("#results-title")).to_contain_text("zebra.jpg")
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, "phone-results")

    page.tap("#crop-open")
    _settle(page)
    box = page.locator("#crop").bounding_box()
    start = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _swipe(page, start, (start[0] - box["width"] / 10, start[1]))
    expect(page.locator("#results-title")).to_contain_text("a part of")
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, "phone-crop")

    _settle(page)
    before = page.evaluate("scrollY")
    card = page.locator(".card").nth(2).bounding_box()
    _swipe(page, (card["x"] + 20, card["y"] + 60), (card["x"] + 20, card["y"] - 240))
    page.wait_for_function("before => scrollY > before + 50", arg=before)
    _wait_until_still(page)
    page.locator(".enlarge").nth(2).tap()
    expect(page.locator("#viewer-image:not(.loading)")).to_be_visible()
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, "phone-viewer")
    page.tap("#viewer-search")
    expect(page.locator("#results-title")).not_to_contain_text("zebra.jpg")


def test_dark(open_service, check_accessibility, screenshots):
    page = open_service(color_scheme="dark", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 20)"
    check_accessibility(page)
    _shoot(page, screenshots, "dark-start")
    page.locator(".tile").first.click()
    expect(page.locator("#results-title")).to_contain_text("Images that look like")
    page.keyboard.press("c")
    check_accessibility(page)
    _shoot(page, screenshots, "dark-results")
    page.locator(".card").first.hover()
    assert page.locator(".card-link").first.evaluate("link => getComputedStyle(link).transform") == "none", (
        "motion reduced"
    )
    page.locator(".enlarge").first.click()
    page.click("#viewer-remove")
    check_accessibility(page)


@pytest.mark.parametrize(("width", "percent"), [(1280, 200), (640, 200), (320, 100)])
def test_large_text_and_narrow_screens_need_no_horizontal_scrolling(open_service, width, percent, screenshots):
    page = open_service(viewport={"width": width, "height": 800})
    # Like the text size in the settings of a browser.
    page.evaluate("percent => { document.documentElement.style.fontSize = `${percent}%` }", percent)
    _fits(page)
    page.locator(".tile").first.click()
    expect(page.locator("#results-title")).to_contain_text("Images that look like")
    page.keyboard.press("c")
    _fits(page)
    _shoot(page, screenshots, f"text-{width}-{percent}")
    for dialog in ("open-add", "open-help"):
        page.click(f"#{dialog}")
        _fits(page)
        page.keyboard.press("Escape")


_PASTE = """data => document.body.dispatchEvent(
    new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}))"""


def _get(service: str, path: str) -> dict:
    with urllib.request.urlopen(service + path, timeout=30) as response:
        return json.load(response)


def _ids(page) -> list[int]:
    return page.locator(".card").evaluate_all("cards => cards.map(card => Number(card.dataset.id))")


def _focused(page) -> int | None:
    return page.evaluate("Number(document.activeElement.closest('.card')?.dataset.id ?? NaN) || null")


def _requests(page) -> list[str]:
    """URLs of all further requests of the page."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    return sent


def _scroll_to_the_end(page) -> None:
    for _ in range(100):
        page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
        if page.locator("#end").is_visible():
            return
        page.wait_for_timeout(50)
    pytest.fail("the list of images does not end")


def _data_transfer(page, image: Path):
    """The data of a drag or of the clipboard with an image file."""
    return page.evaluate_handle(
        """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            return data;
        }""",
        [image.name, list(image.read_bytes())],
    )


def _text_transfer(page, text: str):
    return page.evaluate_handle(
        "text => { const d = new DataTransfer(); d.setData('text/plain', text); return d }", text
    )


def _box(page) -> list[float]:
    """left, top, width and height of the crop box on the screen, in fractions of the image."""
    return page.evaluate(
        """() => {
            const [box, stage] = ["crop", "stage"].map((id) => document.getElementById(id).getBoundingClientRect());
            return [(box.left - stage.left) / stage.width, (box.top - stage.top) / stage.height,
                    box.width / stage.width, box.height / stage.height];
        }"""
    )


def _swipe(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Touch events of a swipe."""
    session = page.context.new_cdp_session(page)
    steps = [(start[0] + (end[0] - start[0]) * t / 8, start[1] + (end[1] - start[1]) * t / 8) for t in range(9)]
    for number, (x, y) in enumerate(steps):
        kind = "touchMove" if number else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def _settle(page) -> None:
    """Wait until the search has ended, the visible images are loaded, and nothing has moved for ten frames.

    The place of a card is only known then: new results replace the cards, and the query image makes room for itself.
    """
    page.evaluate("delete window.settling")
    page.wait_for_function(
        """() => {
            const isNear = ({top, bottom}) => bottom > 0 && top < innerHeight;
            const images = [...document.querySelectorAll(".tile img")].filter(
                (image) => image.checkVisibility() && isNear(image.getBoundingClientRect()));
            images.push(...document.querySelectorAll("#query-image[src]"));
            const isBusy = document.getElementById("grid").ariaBusy !== "false";
            const loaded = !isBusy && images.every((each) => each.complete);
            const places = [...document.querySelectorAll("#drop, #stage, #crop, .card")].map((each) => {
                const {x, y, width, height} = each.getBoundingClientRect();
                return [each.dataset.id, x, y, width, height];
            });
            const now = JSON.stringify(places), before = window.settling ?? {};
            window.settling = {now, frames: loaded && now === before.now ? before.frames + 1 : 0};
            return window.settling.frames >= 10;
        }"""
    )


def _wait_until_still(page) -> None:
    """Wait until the scrolling after a swipe has ended, because a tap would only stop it."""
    before = None
    while (now := page.evaluate("scrollY")) != before:
        before = now
        page.wait_for_timeout(200)


def _fits(page) -> None:
    """Nothing extends beyond the right edge."""
    wide = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((each) => {
            const {right, width} = each.getBoundingClientRect();
            return width > 1 && right > document.documentElement.clientWidth + 1 && !each.closest("#stage");
        }).map((each) => each.outerHTML.slice(0, 100))"""
    )
    assert not wide, wide
    content, visible = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert content <= visible, f"{content} pixels wide in {visible}"


def _shoot(page, folder: Path, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    page.screenshot(path=folder / f"page-{name}.png", animations="disabled")
