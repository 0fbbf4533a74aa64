"""Records the search page and the query picker for README, on the photographs of the sample.

    python -m tests.browser.recording          writes figures/page.webp and figures/picker.webp

Each file is an animated image of a few screenshots, made while a real browser uses the real page and JupyterLab.
"""

import io
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import nbformat
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from helpers import paths
from helpers.images import samples
from helpers.search.engine import Engine
from tests.browser import jupyterlab
from tests.browser.conftest import ARGUMENTS, BROWSERS
from tests.integration.test_service import serving

EXTRACTOR = "efficientnet-lite0"
PICKER = ".lookalike-picker"
NOTEBOOK = f"""
from helpers.evaluation import protocol_files
from helpers.images import samples
from helpers.picker import Picker, show

protocol, images = protocol_files.frozen("sample-distractors").bind(samples.with_distractors())
show(Picker(images, ["{EXTRACTOR}", "hsv-histogram"], protocol=protocol, k=10))
"""
#: How long a screenshot is shown, in milliseconds, and the largest file in bytes.
SHOWN, LARGEST = 1800, 3_000_000


class Recording:
    """Screenshots of a page, in the order in which they were taken."""

    def __init__(self, page: Page):
        self.page = page
        self.images: list[Image.Image] = []

    def shoot(self, pause: int = 300) -> None:
        """Take a screenshot after a pause in milliseconds."""
        self.page.wait_for_timeout(pause)
        self.images.append(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))

    def save(self, path: Path) -> None:
        """Write an animated WebP image."""
        first, *others = self.images
        first.save(path, save_all=True, append_images=others, duration=SHOWN, loop=0, quality=70, method=6)
        assert path.stat().st_size < LARGEST, f"{path} has {path.stat().st_size:,} bytes"
        print(f"{path}: {len(self.images)} screenshots, {path.stat().st_size / 1e6:.2f} MB")


def record_page(page: Page, folder: Path) -> Recording:
    """Search, mark and search again, compare two methods, and see why an image is similar."""
    engine = Engine(EXTRACTOR, "exact:cosine").fit(samples.with_distractors())
    recording = Recording(page)
    with serving(engine.save(folder / "my.engine")) as client:
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.locator("#grid .card").first.wait_for()
        page.wait_for_load_state("networkidle")
        recording.shoot()
        page.locator("#grid .card-link").nth(1).click()
        page.locator("#summary", has_text="Most similar").wait_for()
        page.wait_for_load_state("networkidle")
        recording.shoot()
        for number, sign in ((1, "good"), (0, "bad")):
            page.locator("#grid .card").nth(number).hover()
            page.locator(f"#grid .card >> nth={number}").locator(f".mark-{sign}").click()
        recording.shoot()
        page.click("#marks-search")
        page.locator("#summary", has_text="moved by 2 marks").wait_for()
        page.wait_for_load_state("networkidle")
        recording.shoot()
        page.click("#marks-clear")
        page.select_option("#compare", "k-reciprocal")
        page.locator("#second-grid .card").first.wait_for()
        page.wait_for_load_state("networkidle")
        recording.shoot()
        page.select_option("#compare", "")
        page.locator("#grid .card").first.hover()
        page.locator("#grid .card .enlarge").first.click()
        page.locator("#viewer-details").wait_for()
        recording.shoot(800)
        page.click("#viewer-why")
        page.locator("#viewer-maps").wait_for(timeout=120_000)
        page.locator("#viewer-map-text").scroll_into_view_if_needed()
        recording.shoot(800)
    return recording


def record_picker(page: Page, folder: Path) -> Recording:
    """Choose a query, mark and search again, compare two methods."""
    recording = Recording(page)
    with jupyterlab.running(folder) as lab:
        cell = nbformat.v4.new_code_cell(NOTEBOOK.strip())
        # Without a name of the kernel, JupyterLab would ask for it.
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), lab[2] / "picker.ipynb")
        jupyterlab.run_all(page, lab, "picker.ipynb")
        page.wait_for_selector(f"{PICKER} .thumbnail img[src]", timeout=180_000, state="attached")
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.locator(PICKER).evaluate("root => root.scrollIntoView()")
        _wait(page)
        recording.shoot()
        page.locator(f"{PICKER} .thumbnail").nth(3).click()
        _wait(page)
        recording.shoot()
        for number, sign in ((1, "good"), (0, "bad")):
            card = page.locator(f"{PICKER} .card").nth(number)
            card.hover()
            card.locator(f".mark-{sign}").click()
            _wait(page)
        recording.shoot()
        page.locator(PICKER).get_by_text("Search again with marks").click()
        _wait(page)
        recording.shoot()
        page.get_by_label("Compare two methods").check()
        page.wait_for_function("at => document.querySelectorAll(`${at} .column`).length === 2", arg=PICKER)
        _wait(page)
        recording.shoot()
    return recording


def _wait(page: Page) -> None:
    """Until the picker does not search, and its visible images are loaded."""
    page.wait_for_timeout(200)
    page.wait_for_function(
        """at => { const root = document.querySelector(at);
            return !root.classList.contains("busy") && [...root.querySelectorAll("img")]
                .filter(image => image.checkVisibility()).every(image => image.complete && image.naturalWidth); }""",
        arg=PICKER,
        timeout=180_000,
    )


@contextmanager
def _page(width: int, height: int):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()


def main() -> None:
    """Write both files."""
    for name, record, size in (("page", record_page, (1100, 760)), ("picker", record_picker, (1100, 900))):
        with tempfile.TemporaryDirectory() as folder, _page(*size) as page:
            record(page, Path(folder)).save(paths.committed_figures_dir() / f"{name}.webp")


if __name__ == "__main__":
    main()
