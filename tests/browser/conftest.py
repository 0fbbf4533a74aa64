"""Fixtures for tests in a real browser: an installed Chromium or Chrome; none is downloaded."""

import json
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers import paths

#: Names of the browser's program.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: No sandbox: containers have no user namespaces. The other arguments keep the browser off the network.
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
#: Milliseconds that actions and expectations wait. A slow or busy machine is no reason to fail.
TIMEOUT = 20_000
#: Of a page, unless a test wants another one.
VIEWPORT = {"width": 1280, "height": 900}
#: WCAG 2.1, levels A and AA.
WCAG_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@pytest.fixture(scope="session")
def browser():
    """The browser, started once. Without one, the tests are skipped with a message."""
    try:
        from playwright.sync_api import Error, expect, sync_playwright
    except ImportError as error:
        pytest.skip(f"NOT TESTED in a browser: {error}; ./run_all.sh installs Playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"NOT TESTED in a browser: none of {', '.join(BROWSERS)} is installed; apt-get install chromium")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        except Error as error:
            pytest.skip(f"NOT TESTED in a browser: {program} does not start: {error}")
        expect.set_options(timeout=TIMEOUT)
        yield started
        started.close()


class Console(list):
    """Errors of the pages of a test, as text. ``allowed`` lists parts of expected errors."""

    def __init__(self):
        super().__init__()
        self.allowed: list[str] = []

    @property
    def unexpected(self) -> list[str]:
        return [line for line in self if not any(part in line for part in self.allowed)]


@contextmanager
def errors_of(page, console):
    """Collect the errors of a page in the console of a test."""
    listeners = {
        "console": lambda line: line.type == "error" and console.append(f"{line.text} ({_source(line)})"),
        "pageerror": lambda error: console.append(f"uncaught: {error}"),
        "request": lambda request: _is_outside(request.url) and console.append(f"outside: {request.url}"),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


@pytest.fixture
def console():
    """Console errors, uncaught exceptions and requests to other hosts, of all pages of `open_page`."""
    return Console()


@pytest.fixture
def open_page(browser, console):
    """``open_page(url=None, allowed=(), **context)`` → a page in a fresh profile; `console` collects its errors.

    ``context`` goes to Playwright's new_context: ``viewport={"width": 390, "height": 844}``, ``color_scheme="dark"``,
    ``has_touch=True``. Errors that contain one of ``allowed`` are expected, such as the message of the browser for
    each response with status 400. Any other error fails the test.
    """
    contexts, listening = [], ExitStack()

    def open_(url: str | None = None, allowed=(), **options):
        options.setdefault("viewport", VIEWPORT)
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        console.allowed += allowed
        page = context.new_page()
        listening.enter_context(errors_of(page, console))
        if url is not None:
            page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    listening.close()
    assert console.unexpected == []


@pytest.fixture(scope="session")
def check_accessibility():
    """``check_accessibility(page, within=None, known=())``: axe-core finds no violation of WCAG 2.1 A or AA.

    within : a CSS selector of the part to check. known : ids of rules to skip; give the reason at the call.
    """
    from axe_playwright_python.sync_playwright import Axe

    def check(page, within: str | None = None, known=()):
        options = {
            "runOnly": {"type": "tag", "values": list(WCAG_TAGS)},
            "rules": {rule: {"enabled": False} for rule in known},
        }
        # A list that loads more images is dimmed.
        page.wait_for_function("() => !document.querySelector('[aria-busy=\"true\"]')")
        results = Axe().run(page, context=within, options=options).response
        # If axe-core considers all text hidden, it finds no violations.
        checked = [node for rule in results["passes"] + results["violations"] if rule["id"] == "color-contrast"
                for node in rule["nodes"] if "hidden" not in str(node["any"])]  # fmt: skip
        assert checked, f"axe-core found no visible text in {within or page.url}"
        violations = [
            f"{violation['id']} ({violation['impact']}): {violation['help']}\n"
            + "\n".join(f"    {json.dumps(node['target'])} {node['failureSummary']}" for node in violation["nodes"])
            for violation in results["violations"]
        ]
        assert not violations, "\n".join(violations)

    return check


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder for screenshots, ``build/browser``; people look at them."""
    folder = paths.ROOT / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _source(line) -> str:
    return f"{line.location.get('url', '')}:{line.location.get('lineNumber', '')}"


def _is_outside(url: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and url.split("/")[2].rsplit(":", 1)[0] not in (
        "127.0.0.1", "localhost",
    )  # fmt: skip
