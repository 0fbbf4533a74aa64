"""Searches by parts of images on the web page, in a real browser."""

import re

import pytest
from PIL import Image

from tests.browser.test_page import _settle
from tests.integration.test_service import serving
from tests.integration.test_service_regions import BLUE, RED, RIGHT, TOP, make_engine, painted

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A service of images with regions."""
    with serving(make_engine(tmp_path_factory.mktemp("regions"))) as client:
        yield f"http://127.0.0.1:{client.port}/"


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}])
def test_objects_are_chosen_and_matches_are_outlined(
    open_page, address, tmp_path, check_accessibility, screenshots, options
):
    Image.fromarray(painted({RIGHT: RED, TOP: BLUE})).save(tmp_path / "query.png")
    page = open_page(address, **options)
    expect(page.locator(".card").first).to_be_visible()
    page.set_input_files("#file", tmp_path / "query.png")
    red, blue = (page.get_by_role("button", name=f"Search with this part: {name}") for name in ("red", "blue"))
    expect(red).to_have_attribute("aria-pressed", "false")
    _settle(page)
    stage, box = page.locator("#stage").bounding_box(), red.bounding_box()
    inside = [(box["x"] - stage["x"]) / stage["width"], box["width"] / stage["width"], box["height"] / stage["height"]]
    assert inside == pytest.approx([160 / 256, 80 / 256, 64 / 256], abs=0.01)

    red.click()
    expect(page.locator("#results-title")).to_have_text("Images that look like a part of query.png")
    expect(red).to_have_attribute("aria-pressed", "true")
    blue.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results-title")).to_have_text("Images that look like 2 parts of query.png")
    expect(blue).to_be_focused()
    assert len(re.findall("box=", page.url)) == 2
    # Where the parts are in the best image, in pixels.
    expect(page.locator(".file-name").first).to_have_text("red_and_blue.png")
    outlines = page.locator(".card").first.locator(".outlines rect")
    sides = [[outlines.nth(n).get_attribute(name) for name in ("x", "y", "width", "height")] for n in (0, 1)]
    assert sides == [["32", "80", "64", "96"], ["160", "96", "80", "64"]]
    check_accessibility(page)
    page.screenshot(path=screenshots / f"parts-{'phone' if options else 'wide'}.png")

    page.locator(".card-link").first.focus()
    page.keyboard.press("Space")
    expect(page.locator("#viewer-facts")).to_contain_text("matched: red, blue")
    # Both at once: the details of the file, which come later, move the image.
    image, outline = page.evaluate(
        """["#viewer-image", "#viewer .outlines"].map(name => {
            const {x, y, width, height} = document.querySelector(name).getBoundingClientRect();
            return [x, y, width, height]; })"""
    )
    assert outline == pytest.approx(image, abs=1)
    page.keyboard.press("Escape")
    page.click("#crop-reset")
    expect(page.locator("#results-title")).to_have_text("Images that look like query.png")
    expect(red).to_have_attribute("aria-pressed", "false")
    page.go_back()
    expect(blue).to_have_attribute("aria-pressed", "true")


def test_a_part_of_a_gallery_image_is_a_link(open_page, address):
    images = open_page(address).request.get(f"{address}v1/images").json()["images"]
    own = next(one["id"] for one in images if one["name"] == "red_and_blue.png")
    page = open_page(f"{address}#id={own}&box=32,80,64,96&box=0,0,256,48")
    expect(page.locator("#objects [aria-pressed=true]")).to_have_count(2)
    expect(page.get_by_role("button", name="Search with this part: part")).to_be_visible()
    expect(page.locator("#results-title")).to_have_text("Images that look like 2 parts of red_and_blue.png")
    assert page.locator(f'.card[data-id="{own}"]').count() == 0
