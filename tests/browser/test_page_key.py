"""The page of a service whose searches need a key, in a real browser."""

import pytest

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.settings import Settings

playwright_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED in a browser: Playwright is missing")
expect = playwright_api.expect

KEY, READ_KEY = "the key for changes", "the key for reading"


def test_the_page_shows_nothing_without_the_key(
    open_page, serve_app, check_accessibility, tmp_path, own_cache, screenshots
):
    folder = Engine("hsv-histogram").fit(samples.photos().subset(range(30))).save(tmp_path / "own.engine")
    page = open_page(allowed=["status of 401"])
    page.goto(serve_app(create_app(Settings(folder, api_key=KEY, read_key=READ_KEY))))
    dialog, error = page.locator("#key-dialog"), page.locator("#error")
    expect(dialog).to_be_visible()
    check_accessibility(page, within="#key-dialog")
    page.screenshot(path=screenshots / "page-key.png", animations="disabled")
    page.keyboard.press("Escape")
    expect(error).to_contain_text("This gallery needs the key of the service.")
    assert page.locator(".card").count() == 0
    error.get_by_role("button", name="Try again").click()
    dialog.locator("[name=key]").fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(error).to_contain_text("The key is missing or wrong.")
    error.get_by_role("button", name="Try again").click()
    dialog.locator("[name=key]").fill(READ_KEY)
    dialog.get_by_role("button", name="Continue").click()
    card = page.locator(".card").first
    expect(card).to_be_visible()
    # A function: the page forbids eval(), and Playwright evaluates a string again for each poll.
    page.wait_for_function("() => document.querySelector('.card img').naturalWidth > 0")
    card.click()
    expect(page.locator(".score").first).to_be_visible()
    # The cookie lasts until the browser is closed. The key for changes is another one.
    page.reload()
    expect(page.locator(".score").first).to_be_visible()
    page.click("#open-add")
    expect(page.locator("#add-form [name=key]")).to_be_visible()
    assert READ_KEY not in page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
