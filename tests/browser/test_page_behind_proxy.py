"""The page of the service in a real browser, under a path of a reverse proxy."""

import pytest

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.settings import Settings

playwright_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED in a browser: Playwright is missing")
expect = playwright_api.expect

KEY = "a key for this test"


# Takes 5 seconds and more: a new service and proxy each, because a proxy cannot change the path of a running page.
@pytest.mark.parametrize(
    ("path", "root_path", "keeps_path"),
    [("/user/ann/proxy/8000", "", False), pytest.param("/photos", "/photos", True, marks=pytest.mark.measured)],
    ids=["path removed", "path kept"],
)
def test_the_page_works_under_a_path(
    path, root_path, keeps_path, open_page, serve_app, reverse_proxy, tmp_path, own_cache, screenshots
):
    photos = samples.photos()
    folder = Engine("hsv-histogram").fit(photos.subset(range(30))).save(tmp_path / "own.engine")
    url = reverse_proxy(serve_app(create_app(Settings(folder, root_path=root_path, api_key=KEY))), path, keeps_path)
    page = open_page()
    sent, failed = [], []
    page.on("request", lambda request: sent.append(request.url))
    # Leaving a view cancels the images that have not arrived.
    page.on("requestfailed", lambda each: "ERR_ABORTED" in each.failure or failed.append(f"{each.url}: {each.failure}"))
    page.on("response", lambda result: result.status >= 400 and failed.append(f"{result.url}: {result.status}"))

    # Without the slash at the end, as people type it.
    page.goto(url)
    expect(page.locator(".card").first).to_be_visible()
    assert page.url == (f"{url}/" if keeps_path else url)
    query = photos.paths[40]
    page.set_input_files("#file", query)
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {query.name}")
    expect(page.locator(".score").first).to_be_visible()
    for card in page.locator(".card img").all()[:8]:
        _is_shown(card)
    page.screenshot(path=screenshots / f"page-under{path.replace('/', '-')}.png", animations="disabled")

    page.click("#open-add")
    page.fill("#add-form [name=key]", KEY)
    page.click("#add-submit")
    page.get_by_role("button", name="Search with it").click()
    expect(page).to_have_url(f"{url}/#id=30")
    _is_shown(page.locator("#query-image"))
    page.go_back()
    expect(page.locator("#results-title")).to_have_text(f"Images that look like {query.name}")
    page.locator(".card").first.hover()
    page.locator(".enlarge").first.click()
    _is_shown(page.locator("#viewer-image"))
    page.click("#viewer-close")
    page.click("#brand")
    expect(page.locator("#results-title")).to_have_text("Or start from one of these")
    page.reload()
    expect(page.locator(".card").first).to_be_visible()

    page.click("#open-help")
    page.get_by_role("link", name="HTTP interface").click()
    expect(page.locator("h1, h2").first).to_contain_text("Lookalike", timeout=30_000)
    # A request of the interactive documentation reaches the service behind the proxy.
    page.locator("#operations-about-health_health_get button.opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200", timeout=20_000)
    assert failed == []
    assert [address for address in sent if not address.startswith((f"{url}/", "blob:")) and address != url] == []


def _is_shown(image) -> None:
    expect(image).to_have_js_property("complete", True)
    # Waits until the image has arrived and is decoded, and fails if it cannot be.
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth") > 0
