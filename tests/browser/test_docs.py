"""The interactive documentation of the HTTP interface, in a browser that reaches no other host."""

import pytest

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.settings import Settings

playwright_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED in a browser: Playwright is missing")
expect = playwright_api.expect


def test_the_documentation_sends_requests(open_page, serve_app, tmp_path, screenshots):
    folder = Engine("hsv-histogram").fit(samples.photos().subset(range(30))).save(tmp_path / "own.engine")
    page = open_page(f"{serve_app(create_app(Settings(folder)))}/docs")
    expect(page.locator(".info .title")).to_contain_text("Lookalike", timeout=30_000)
    assert page.locator(".opblock").count() >= 16
    operation = page.locator(".opblock", has_text="/v1/search/id/{id}")
    operation.locator("button.opblock-summary-control").click()
    expect(operation.get_by_text("Number of better results to skip.")).to_be_visible()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("[data-param-name=id] input").fill("3")
    operation.get_by_role("button", name="Execute").click()
    response = operation.locator(".live-responses-table")
    expect(response.locator(".response-col_status").last).to_contain_text("200")
    expect(response).to_contain_text('"rank": 1')
    page.screenshot(path=screenshots / "docs.png", animations="disabled")
    body = page.locator(".opblock", has_text="/v1/search/combined")
    body.locator("button.opblock-summary-control").click()
    expect(body.locator(".body-param__example, .example").first).to_contain_text('"weight": -0.5')
