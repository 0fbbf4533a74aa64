"""Notebook 16 as an app: Voilà shows it without its code, and the query picker in it works."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

from helpers import paths
from helpers.loopback import reserved_port

SIXTEEN = paths.ROOT / "notebooks" / "16_search_service.ipynb"
SMALL = {"EXTRACTOR": "hsv-histogram", "MAX_QUERIES": 60, "WORKERS": 1}
ROOT = ".lookalike-picker"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The address of Voilà's page for a quick copy of the notebook, which has been run already."""
    home = tmp_path_factory.mktemp("voila")
    notebook = nbformat.read(SIXTEEN, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in SMALL.items())
    nbformat.write(notebook, home / "app.ipynb")
    with reserved_port() as port:
        environment = os.environ | {
            "HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_DATA_DIR": str(home / "data"),
            "PYTHONPATH": str(paths.ROOT), "LOOKALIKE_CACHE": str(paths.cache_dir()),
            "LOOKALIKE_FIGURES": str(home / "figures"),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "voila", str(home / "app.ipynb"), "--no-browser", f"--port={port}",
            "--Voila.ip=127.0.0.1", "--strip_sources=True",
        ]  # fmt: skip
        log = home / "voila.log"
        with log.open("wb") as written:
            server = subprocess.Popen(command, env=environment, stdout=written, stderr=subprocess.STDOUT, cwd=home)
        try:
            address = f"http://127.0.0.1:{port}/"
            end = time.monotonic() + 90
            while True:
                assert server.poll() is None and time.monotonic() < end, log.read_text()
                try:
                    urllib.request.urlopen(f"{address}voila/static/", timeout=5).close()
                except urllib.error.HTTPError:
                    break
                except OSError:
                    time.sleep(0.3)
                else:
                    break
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def test_the_picker_of_notebook_16_is_an_app(app, open_page, check_accessibility, screenshots):
    # Voilà's own template requests fonts and formulas from the internet; the picker does not.
    page = open_page(
        allowed=("ERR_NAME_NOT_RESOLVED", "outside: https://cdn"), viewport={"width": 1200, "height": 1500}
    )
    page.goto(app, timeout=300_000)
    page.wait_for_selector(ROOT, timeout=120_000)
    text = page.inner_text("body")
    assert "16 · A search service" in text and "import numpy" not in text, "the code is shown"
    assert "Traceback" not in text
    status = page.locator(ROOT).get_by_role("status").first
    before = status.inner_text()
    page.locator(ROOT).get_by_role("button", name="Random", exact=True).click()
    page.locator(ROOT).get_by_role("button", name="Search", exact=True).click()
    page.wait_for_function(
        "([root, before]) => { const now = document.querySelector(root + ' [role=status]').innerText;"
        " return now !== before && /results for/.test(now); }",
        arg=[ROOT, before],
        timeout=60_000,
    )
    assert re.search(r"10 results for \S+", status.inner_text())
    static = page.locator(f".jp-OutputArea-child:has({ROOT}) + .jp-OutputArea-child img")
    assert static.count() == 1 and not static.is_visible(), "the widget is shown instead of its image"
    check_accessibility(page, ROOT)
    page.screenshot(path=screenshots / "voila.png")
