"""The main path of the page in Debian's Firefox and in WebKitGTK: search, upload, crop, text and marks."""

import shutil
import time

import pytest

from helpers.cli import main as cli
from helpers.images import samples
from tests.browser import webdrivers
from tests.integration.test_service import serving

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")
from tests.unit.test_onnx_encoder import write_clip  # noqa: E402 (needs both)

_TITLE = "return document.getElementById('results-title').textContent"
_IDS = "return [...document.querySelectorAll('#grid .card')].map((card) => Number(card.dataset.id))"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A service of twelve photographs by an encoder of random weights, so that texts can be searched."""
    folder = tmp_path_factory.mktemp("browsers")
    (folder / "photos").mkdir()
    for path in samples.photos().paths[:12]:
        shutil.copy(path, folder / "photos")
    encoder = write_clip(folder / "encoder")
    assert cli.main(["index", str(folder / "photos"), "-x", f"onnx:{encoder}", "-o", str(folder / "my.engine")]) == 0
    with serving(folder / "my.engine") as client:
        yield f"http://127.0.0.1:{client.port}/"


# Each browser takes seconds to start.
@pytest.mark.parametrize("start", [webdrivers.firefox, webdrivers.webkit], ids=["firefox", "webkitgtk"])
def test_the_main_path(start, address, tmp_path):
    with start(tmp_path) as browser:
        browser.open(address)
        browser.wait("return document.querySelectorAll('.card.loaded').length > 8")
        browser.run("document.querySelector('.card .tile').click()")
        browser.wait("return location.hash.startsWith('#id=')")

        image = samples.photos().paths[3]
        browser.upload("#file", image)
        # The first image of the gallery, which is shown in random order, may have the same name.
        browser.wait("return new URLSearchParams(location.hash.slice(1)).has('upload')")
        browser.wait(f"{_TITLE}.endsWith(arguments_[0])", f"look like {image.name}")
        assert browser.run("return document.querySelector('.score').textContent") == "1.000"
        shown = browser.run(_IDS)

        stage = browser.wait(
            "const {x, y, width, height} = document.getElementById('stage').getBoundingClientRect();"
            "return document.getElementById('query-image').complete && width > 50 && [x, y, width, height]"
        )
        x, y, width, height = stage
        browser.drag((x + 0.2 * width, y + 0.2 * height), (x + 0.8 * width, y + 0.7 * height))
        browser.wait(f"{_TITLE}.includes('a part of')")
        left, top = browser.run(
            "return new URLSearchParams(location.hash.slice(1)).get('crop').split(',').slice(0, 2).map(Number)"
        )
        assert (left, top) == pytest.approx((0.2, 0.2), abs=0.03)
        browser.run("document.getElementById('crop-reset').click()")
        browser.wait(f"return !({_TITLE.removeprefix('return ')}).includes('a part of')")

        browser.run("document.querySelectorAll('#grid .card .mark-good')[5].click()")
        browser.run("document.querySelectorAll('#grid .card .mark-bad')[2].click()")
        browser.wait("return document.getElementById('marks-text').textContent === '1 good, 1 bad'")
        browser.run("document.getElementById('marks-search').click()")
        browser.wait("return document.getElementById('summary').textContent.includes('moved by 2 marks')")
        assert sorted(browser.run(_IDS)) == sorted(shown)

        browser.run(
            "document.getElementById('text').value = 'a red bird';document.getElementById('text-form').requestSubmit()"
        )
        browser.wait(f"{_TITLE}.includes('a red bird')")
        # The upload survives a reload.
        browser.run("window.isOld = true; setTimeout(() => location.reload())")
        browser.wait("return !window.isOld")
        browser.wait(f"{_TITLE}.startsWith(arguments_[0])", f"Images that look like {image.name}")
        browser.wait("return document.querySelectorAll('.card.loaded').length > 8")
        # Errors are reported in order, so this one comes after all others. It may come late.
        browser.run("setTimeout(() => { throw new Error('on purpose') })")
        end = time.monotonic() + 30
        while not any("on purpose" in error for error in browser.errors) and time.monotonic() < end:
            browser.run("return new Promise((resolve) => setTimeout(resolve, 100))")
        assert len(browser.errors) == 1 and "on purpose" in browser.errors[0]
