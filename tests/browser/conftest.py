"""A real browser for these tests: Debian's Chromium, or any other that is there; none is downloaded."""

import json
import shutil
from pathlib import Path

import pytest

from helpers import paths

#: What Chromium may be called; Debian's first.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: No sandbox: containers have no user namespaces. The rest keeps the browser's own errands away from the network.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
#: WCAG 2.1, levels A and AA.
PROTOCOL = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@pytest.fixture(scope="session")
def browser():
    """The browser, started once; without one these tests are skipped aloud."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        pytest.skip(f"NOT TESTED in a browser: {error}; ./run_all.sh installs Playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"NOT TESTED in a browser: none of {', '.join(BROWSERS)} is there; apt-get install chromium")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        except Error as error:
            pytest.skip(f"NOT TESTED in a browser: {program} does not start: {error}")
        yield started
        started.close()


class Console(list):
    """What the pages of a test complained of, as text; ``allowed`` are parts of complaints that the test provokes."""

    def __init__(self):
        super().__init__()
        self.allowed: list[str] = []

    @property
    def unexpected(self) -> list[str]:
        return [line for line in self if not any(part in line for part in self.allowed)]


@pytest.fixture
def console():
    """Console errors, uncaught exceptions and requests to other machines, of all pages that `open_page` opened."""
    return Console()


@pytest.fixture
def open_page(browser, console):
    """``open_page(url=None, allowed=(), **context)`` → a page in a fresh profile; see `console` for what it collects.

    ``context`` goes to Playwright's new_context: ``viewport={"width": 390, "height": 844}``, ``color_scheme="dark"``,
    ``has_touch=True``. Complaints that hold one of ``allowed`` are what the test provokes, such as the line that a
    browser writes for each answer of status 400. After the test there may be no other.
    """
    contexts = []

    def open_(url: str | None = None, allowed=(), **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        console.allowed += allowed
        page = context.new_page()
        page.on("console", lambda line: line.type == "error" and console.append(f"{line.text} ({_place(line)})"))
        page.on("pageerror", lambda error: console.append(f"uncaught: {error}"))
        page.on("request", lambda request: _is_outside(request.url) and console.append(f"outside: {request.url}"))
        if url is not None:
            page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert console.unexpected == []


@pytest.fixture(scope="session")
def check_accessibility():
    """``check_accessibility(page, within=None, known=())``: axe-core finds nothing against WCAG 2.1 A or AA.

    within : a CSS selector, to look at a part of the page only. known : ids of rules to leave out, with a reason
    beside the call.
    """
    from axe_playwright_python.sync_playwright import Axe

    def check(page, within: str | None = None, known=()):
        options = {
            "runOnly": {"type": "tag", "values": list(PROTOCOL)},
            "rules": {rule: {"enabled": False} for rule in known},
        }
        found = Axe().run(page, context=within, options=options).response
        # Where it takes everything for hidden, it finds no fault with anything.
        seen = [node for rule in found["passes"] + found["violations"] if rule["id"] == "color-contrast"
                for node in rule["nodes"] if "hidden" not in str(node["any"])]  # fmt: skip
        assert seen, f"axe-core saw no text in {within or page.url}"
        told = [
            f"{violation['id']} ({violation['impact']}): {violation['help']}\n"
            + "\n".join(f"    {json.dumps(node['target'])} {node['failureSummary']}" for node in violation["nodes"])
            for violation in found["violations"]
        ]
        assert not told, "\n".join(told)

    return check


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder for images of pages, ``build/browser``; a person looks at them."""
    folder = paths.ROOT / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _place(line) -> str:
    return f"{line.location.get('url', '')}:{line.location.get('lineNumber', '')}"


def _is_outside(url: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and url.split("/")[2].rsplit(":", 1)[0] not in (
        "127.0.0.1", "localhost",
    )  # fmt: skip
