"""The tools of the page in a real browser: marks, methods, details, classes, undo, selection, duplicates and order."""

import csv
import io
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.reading import read_image
from helpers.search.engine import Engine
from tests.browser.test_page import ERROR_RESPONSE, KEY, PHONE, _fits, _ids, _shoot
from tests.integration.test_service import serving

playwright_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED in a browser: Playwright is missing")
expect = playwright_api.expect


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Three classes of the sample, a photograph with the metadata of a camera, and two copies of one image."""
    root = tmp_path_factory.mktemp("own") / "gallery"
    photos = samples.photos()
    for name in ("birds", "flowers", "fruit"):
        (root / name).mkdir(parents=True)
        for row in np.flatnonzero(photos.labels == photos.class_names.index(name))[:14]:
            shutil.copy(photos.paths[row], root / name)
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Coolpix 4300"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:31 18:04:09"
    Image.fromarray(255 - read_image(photos.paths[0])).save(root / "birds" / "photo.jpg", exif=exif)
    original = sorted((root / "flowers").iterdir())[2]
    shutil.copy(original, root / "fruit" / "same.jpg")
    small = Image.open(original)
    small.resize((small.width // 2, small.height // 2)).save(root / "flowers" / "small.jpg", quality=85)
    return from_folder(root)


@pytest.fixture(scope="module")
def engine(gallery):
    return Engine("hsv-histogram", "exact:cosine").fit(gallery)


@pytest.fixture(scope="module")
def client(engine, tmp_path_factory):
    """A client of a service that the tests share; they undo their changes, but ids may change."""
    with serving(engine.save(tmp_path_factory.mktemp("tools") / "my.engine")) as client:
        yield client


@pytest.fixture
def open_service(open_page, client):
    def open_(path: str = "", **options):
        page = open_page(f"http://127.0.0.1:{client.port}/{path}", **options)
        expect(page.locator(".card").first).to_be_visible()
        return page

    return open_


def own_id(client, part):
    return next(each["id"] for each in client.get("/v1/images?limit=100").json()["images"] if part in each["key"])


def control(page, number, selector):
    """Click a control of a card of the first list."""
    card = page.locator("#grid .card").nth(number)
    card.hover()
    card.locator(selector).click()


def test_marks_move_the_query(open_service, client, check_accessibility, screenshots):
    query = own_id(client, "birds/")
    page = open_service(f"#id={query}")
    shown = _ids(page)
    expect(page.locator("#marks-bar")).to_be_hidden()
    control(page, 6, ".mark-good")
    page.locator("#grid .card-link").nth(1).focus()
    page.keyboard.press("b")
    expect(page.locator("#marks-text")).to_have_text("1 good, 1 bad")
    expect(page.locator("#marks-search")).to_have_text("Search again with marks")
    check_accessibility(page)
    _shoot(page, screenshots, "marks")
    page.click("#marks-search")
    expect(page.locator("#summary")).to_contain_text("moved by 2 marks")
    marks = {"good": shown[6], "bad": shown[1], "k": 24}
    found = client.get(f"/v1/search/id/{query}", params=marks).json()["results"]
    assert _ids(page)[:24] == [each["id"] for each in found] != shown[:24]
    expect(page.locator(f'.card[data-id="{shown[6]}"] .mark-good')).to_have_attribute("aria-pressed", "true")
    assert page.url.endswith(f"#id={query}&good={shown[6]}&bad={shown[1]}")
    page.reload()
    expect(page.locator("#marks-text")).to_have_text("1 good, 1 bad")
    # A change does not undo another one whose search still runs.
    page.evaluate(
        """() => { document.querySelector("#marks-clear").click();
            const methods = document.querySelector("#rerank");
            methods.value = "k-reciprocal";
            methods.dispatchEvent(new Event("change")); }"""
    )
    expect(page.locator("#summary")).to_contain_text("re-ranked by k-reciprocal")
    expect(page.locator("#marks-bar")).to_be_hidden()
    page.select_option("#rerank", "")
    expect(page.locator("#summary")).not_to_contain_text("re-ranked")
    assert _ids(page)[:24] == shown[:24]


def _wait_until_loaded(page):
    """Lists that load images say so."""
    page.wait_for_function("() => !document.querySelector('[aria-busy=\"true\"]')")


def test_methods_side_by_side_and_a_threshold(open_service, client, check_accessibility, screenshots):
    query = own_id(client, "fruit/")
    page = open_service(f"#id={query}")
    page.select_option("#rerank", "k-reciprocal")
    expect(page.locator("#summary")).to_contain_text("re-ranked by k-reciprocal")
    expect(page.locator(".score").first).to_have_attribute("title", re.compile("re-ranking k-reciprocal"))

    def found(name):
        parameters = {"rerank": name, "k": 24}
        return [each["id"] for each in client.get(f"/v1/search/id/{query}", params=parameters).json()["results"]]

    assert _ids(page)[:24] == found("k-reciprocal")
    page.select_option("#compare", "none")
    expect(page.locator("#second-title")).to_have_text("No re-ranking")
    _wait_until_loaded(page)
    lists = [
        page.locator(f"#{each} .card").evaluate_all("cards => cards.map(card => Number(card.dataset.id))")
        for each in ("grid", "second-grid")
    ]
    assert [each[:24] for each in lists] == [found("k-reciprocal"), found("none")]
    common = page.locator("#grid .card.common").evaluate_all("cards => cards.map(card => Number(card.dataset.id))")
    assert set(common) == set(lists[0]) & set(lists[1])
    rank = lists[1].index(common[0]) + 1
    expect(page.locator(f'#grid .card[data-id="{common[0]}"]')).to_contain_text(f"also rank {rank}")
    check_accessibility(page)
    _shoot(page, screenshots, "compared")
    page.reload()
    expect(page.locator("#second-grid .card").first).to_be_visible()

    page.select_option("#compare", "")
    page.select_option("#rerank", "")
    expect(page.locator("#second")).to_be_hidden()
    expect(page.locator("#summary")).not_to_contain_text("re-ranked")
    _wait_until_loaded(page)
    scores = [float(text) for text in page.locator(".score").all_text_contents()]
    page.fill("#threshold", str(scores[4]))
    page.press("#threshold", "Enter")
    expect(page.locator("#end")).to_contain_text("All other scores are below")
    _wait_until_loaded(page)
    kept = [float(text) for text in page.locator(".score").all_text_contents()]
    assert 4 <= len(kept) <= 5 and min(kept) >= scores[4] - 0.001
    page.click("#copy-link")
    expect(page.locator("#hint")).to_have_text("The link was copied.")


def test_an_upload_is_re_ranked_by_its_pixels(open_service, gallery):
    page = open_service()
    page.set_input_files("#file", gallery.paths[20])
    expect(page.locator("#results-title")).to_contain_text(gallery.paths[20].name)
    page.select_option("#rerank", "geometry")
    expect(page.locator("#summary")).to_contain_text("re-ranked by geometry")
    expect(page.locator(".file-name").first).to_have_text(gallery.paths[20].name)
    control(page, 2, ".enlarge")
    page.click("#viewer-why")
    expect(page.locator("#viewer-maps")).to_be_visible()
    for name in ("query", "result"):
        image = page.locator(f"#viewer-map-{name}")
        assert image.evaluate("image => image.naturalWidth") > 50
        expect(image).to_be_in_viewport(ratio=0.9)
    expect(page.locator("#viewer-map-text")).to_contain_text("The score above differs")


def test_details_class_and_download(open_service, client, gallery, check_accessibility, screenshots):
    page = open_service("#class=birds")
    expect(page.locator("#results-title")).to_have_text("All images of class birds")
    number = _ids(page).index(own_id(client, "birds/photo"))
    control(page, number, ".enlarge")
    details = page.locator("#viewer-details")
    expect(details).to_contain_text("31 May 2024, 18:04")
    expect(details).to_contain_text("Coolpix 4300")
    expect(details).to_contain_text("birds/photo.jpg")
    check_accessibility(page)
    _shoot(page, screenshots, "details")
    with page.expect_download() as download:
        page.click("#viewer-download")
    path = next(path for path in gallery.paths if path.name == "photo.jpg")
    assert download.value.suggested_filename == "photo.jpg" and download.value.path().read_bytes() == path.read_bytes()
    page.fill("#viewer-class", "night")
    page.click("#viewer-class-save")
    expect(page.locator("#viewer-facts")).to_contain_text("night")
    page.keyboard.press("Escape")
    expect(page.locator("#class")).to_contain_text("night (1)")
    expect(page.locator("#grid .class-name").nth(number)).to_have_text("night")
    assert client.get(f"/v1/images/{own_id(client, 'birds/photo')}").json()["class_name"] == "night"
    control(page, number, ".enlarge")
    page.fill("#viewer-class", "birds")
    page.press("#viewer-class", "Enter")
    expect(page.locator("#viewer-facts")).to_contain_text("birds ·")


def test_selected_images_are_exported_removed_and_restored(open_service, client, gallery, check_accessibility):
    page = open_service("#sort=name&class=flowers", permissions=["clipboard-read", "clipboard-write"])
    total = client.get("/v1/info").json()["images"]
    for number in (0, 2):
        control(page, number, ".pick input")
    names = [page.locator(".file-name").nth(number).text_content() for number in (0, 2)]
    expect(page.locator("#selection-text")).to_have_text("2 selected")
    check_accessibility(page)
    with page.expect_download() as download:
        page.click("#selection-csv")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["name"] for row in rows] == names and {row["class"] for row in rows} == {"flowers"}
    with page.expect_download() as download:
        page.click("#selection-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == [f"flowers/{name}" for name in names]
    page.click("#selection-paths")
    expect(page.locator("#hint")).to_have_text("2 paths copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(f"flowers/{name}" for name in names)

    page.click("#selection-remove")
    expect(page.locator("#undo-text")).to_have_text("2 images were removed.")
    expect(page.locator("#selection-bar")).to_be_hidden()
    expect(page.locator(".file-name", has_text=names[0])).to_have_count(0)
    assert client.get("/v1/info").json()["images"] == total - 2
    check_accessibility(page)
    page.click("#undo-button")
    expect(page.locator("#undo-text")).to_have_text("The removal was undone.")
    expect(page.locator(".file-name").first).to_have_text(names[0])
    assert client.get("/v1/info").json()["images"] == total


def test_duplicates_are_removed_but_the_best_copy(open_service, client, gallery, check_accessibility, screenshots):
    page = open_service()
    total = client.get("/v1/info").json()["images"]
    page.click("#open-duplicates")
    group = page.locator(".copies").first
    expect(group.locator("li")).to_have_count(3)
    expect(group.locator(".copy-best:visible")).to_have_count(1)
    expect(group).to_contain_text("identical file")
    check_accessibility(page)
    _shoot(page, screenshots, "duplicates")
    group.get_by_text("small.jpg").click()
    removed = page.locator("#duplicates-list :checked").count()
    page.click("#duplicates-remove")
    expect(page.locator("#undo-bar")).to_be_visible()
    assert client.get("/v1/info").json()["images"] == total - removed
    names = [each["name"] for each in client.get("/v1/images?limit=100").json()["images"]]
    equal = {"same.jpg", sorted(path.name for path in gallery.paths if path.parent.name == "flowers")[2]}
    assert "small.jpg" in names and len(equal.intersection(names)) == 1
    page.click("#undo-button")
    expect(page.locator("#undo-text")).to_have_text("The removal was undone.")


def test_the_gallery_in_an_order(open_service, client, gallery):
    page = open_service()
    page.select_option("#sort", "-size")
    expect(page.locator("#results-title")).to_have_text("All images")
    largest = max(gallery.paths, key=lambda path: path.stat().st_size)
    expect(page.locator(".file-name").first).to_have_text(largest.name)
    page.select_option("#class", "fruit")
    expect(page.locator(".card")).to_have_count(15)
    expect(page.locator("#sort")).to_have_value("-size")
    sizes = {path.name: path.stat().st_size for path in gallery.paths}
    shown = [sizes[name] for name in page.locator(".file-name").all_text_contents()]
    assert shown == sorted(shown, reverse=True)


def test_images_without_a_class(open_service, client):
    """The page sends ``no_class=true``, which the service accepts in place of ``class_name``."""

    def set_class(id: int, name: str | None) -> dict:
        return client.patch(f"/v1/images/{id}", json={"class_name": name}).raise_for_status().json()

    changed = set_class(own_id(client, "birds/photo"), None)
    try:
        page = open_service()
        page.select_option("#class", label="no class (1)")
        expect(page.locator("#results-title")).to_have_text("All images without a class")
        expect(page.locator("#grid .card")).to_have_count(1)
        assert page.url.endswith("#no_class=true") and _ids(page) == [changed["id"]]
        page.goto(f"{page.url}&id={own_id(client, 'birds/')}")
        expect(page.locator("#summary")).to_contain_text("no class only")
        expect(page.locator("#grid .card")).to_have_count(1)
        assert _ids(page) == [changed["id"]]
        page.select_option("#class", "birds")
        expect(page.locator("#summary")).to_contain_text("class birds only")
        assert "no_class" not in page.url and "birds" in page.url
    finally:
        set_class(changed["id"], "birds")


def test_rows_are_full_and_images_without_bars(open_service, client):
    page = open_service("#sort=name", viewport={"width": 1366, "height": 900})
    expect(page.locator(".card.loaded").nth(19)).to_be_attached()
    tiles = page.locator(".tile img").evaluate_all(
        "images => images.slice(0, 20).map(image => {"
        "  const {top, right, width, height} = image.getBoundingClientRect();"
        "  return [Math.round(top), right, width / height, image.naturalWidth / image.naturalHeight]; })"
    )
    shown, natural = (np.array([tile[column] for tile in tiles]) for column in (2, 3))
    inside = (natural > 0.72) & (natural < 2.5)
    assert inside.sum() > 10 and shown[inside] == pytest.approx(natural[inside], rel=0.03)
    rows: dict[int, float] = {}
    for top, right, *_ in tiles:
        rows[top] = max(rows.get(top, 0), right)
    edges = list(rows.values())[:-1]
    assert len(edges) >= 2 and max(edges) - min(edges) < 3, "rows have one height and end at one edge"


def test_large_photographs_are_reduced(open_page, engine, tmp_path):
    with serving(engine.save(tmp_path / "small.engine"), max_body=300_000, max_pixels=1_500_000) as client:
        page = open_page(f"http://127.0.0.1:{client.port}/")
        expect(page.locator(".card").first).to_be_visible()
        noise = np.random.default_rng(0).integers(0, 60, (900, 1400, 3)).astype(np.uint8)
        noise[200:700, 300:1000] += 120
        Image.fromarray(noise).save(tmp_path / "large.png")
        assert (tmp_path / "large.png").stat().st_size > 2_000_000
        page.set_input_files("#file", tmp_path / "large.png")
        # As a JPEG of the same size, noise is still too large.
        expect(page.locator("#results-title")).to_have_text("Images that look like large.jpg")
        assert 300 < _query_size(page)[0] < 1400
        (tmp_path / "unknown.jpg").write_bytes(bytes(400_000))
        page.set_input_files("#file", tmp_path / "unknown.jpg")
        expect(page.locator("#error-text")).to_have_text("unknown.jpg is too large (0.4 MB). The limit is 0.3 MB.")
        smooth = np.kron(noise[::30, ::30], np.ones((30, 30, 1), np.uint8))
        Image.fromarray(smooth).save(tmp_path / "photo.bmp")
        page.set_input_files("#file", tmp_path / "photo.bmp")
        expect(page.locator("#results-title")).to_have_text("Images that look like photo.jpg")
        expect(page.locator("#hint")).to_contain_text("photo.bmp is large, so the browser reduced it")
        # Few bytes, but too many pixels.
        Image.new("RGB", (1600, 1000), (3, 90, 200)).save(tmp_path / "flat.png")
        assert (tmp_path / "flat.png").stat().st_size < 20_000
        page.set_input_files("#file", tmp_path / "flat.png")
        expect(page.locator("#results-title")).to_have_text("Images that look like flat.jpg")
        width, height = _query_size(page)
        assert 1_400_000 < width * height <= 1_500_000 and width / height == pytest.approx(1.6, rel=0.01)
        page.close()


def _query_size(page) -> list[int]:
    """Width and height of the query image, once it is loaded."""
    return page.locator("#query-image").evaluate(
        "async image => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
    )


def test_images_are_dropped_into_the_dialog(open_service, client, tmp_path):
    Image.new("RGB", (60, 40), (3, 90, 200)).save(tmp_path / "blue.png")
    page = open_service()
    page.click("#open-add")
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "blue.png", {type: "image/png"}));
            return data;
        }""",
        list((tmp_path / "blue.png").read_bytes()),
    )
    page.dispatch_event("#add-drop", "dragover", {"dataTransfer": data})
    expect(page.locator("#add-drop")).to_have_class(re.compile("over"))
    page.dispatch_event("#add-drop", "drop", {"dataTransfer": data})
    page.click("#add-submit")
    expect(page.locator("#add-done")).to_contain_text("1 image was added.")
    client.delete(f"/v1/images/{own_id(client, '.png')}")


def test_edits_ask_for_the_key_once(open_page, engine, tmp_path):
    with serving(engine.save(tmp_path / "my.engine"), key=KEY) as client:
        page = open_page(f"http://127.0.0.1:{client.port}/#sort=name", allowed=[ERROR_RESPONSE + " 401"])
        control(page, 0, ".enlarge")
        page.fill("#viewer-class", "first")
        page.click("#viewer-class-save")
        page.fill("#key-form [name=key]", "wrong")
        page.click("#key-form [type=submit]")
        expect(page.locator("#viewer-error")).to_contain_text("The key is missing or wrong.")
        page.click("#viewer-class-save")
        page.fill("#key-form [name=key]", KEY)
        page.press("#key-form [name=key]", "Enter")
        expect(page.locator("#viewer-facts")).to_contain_text("first")
        page.keyboard.press("Escape")
        control(page, 1, ".pick input")
        page.click("#selection-remove")
        expect(page.locator("#undo-text")).to_contain_text("was removed.")
        page.close()


def test_nothing_at_an_address(open_page, client, check_accessibility, screenshots):
    page = open_page(f"http://127.0.0.1:{client.port}/no/such/page", allowed=[ERROR_RESPONSE + " 404"])
    expect(page.locator("h1")).to_have_text("There is nothing at this address")
    check_accessibility(page)
    _shoot(page, screenshots, "not-found")
    page.click("text=Search for images")
    expect(page.locator(".card").first).to_be_visible()


# Each takes about 5 seconds: two lists and a dialog are laid out and checked. CI tests the extremes.
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({**PHONE, "color_scheme": "dark"}, id="360"),
        pytest.param({"viewport": {"width": 768, "height": 1024}}, id="768", marks=pytest.mark.measured),
        pytest.param(
            {"viewport": {"width": 1366, "height": 768}, "color_scheme": "dark"}, id="1366", marks=pytest.mark.measured
        ),
        pytest.param({"viewport": {"width": 2560, "height": 1440}}, id="2560"),
    ],
)
def test_widths(open_service, client, check_accessibility, screenshots, options):
    page = open_service(f"#id={own_id(client, 'flowers/')}&compare=expansion", **options)
    width = options["viewport"]["width"]
    expect(page.locator("#second-grid .card").first).to_be_visible()
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, f"compared-{width}")
    page.locator("#grid .card-link").nth(1).focus()
    page.keyboard.press("g")
    page.keyboard.press("x")
    page.keyboard.press(" ")
    expect(page.locator("#viewer-details")).to_contain_text("pixels")
    _fits(page)
    check_accessibility(page)
    _shoot(page, screenshots, f"tools-{width}")
