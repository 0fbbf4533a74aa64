"""Screenshots of pages: of the whole window, after its scripts ran; none without a browser."""

import shutil

import pytest

from helpers.lessons import page_screenshot


def test_a_page_is_shown_after_its_scripts_ran(tmp_path):
    if not any(map(shutil.which, page_screenshot.BROWSERS)):
        pytest.skip("NOT TESTED in a browser: none is installed; apt-get install chromium")
    page = tmp_path / "page.html"
    script = "setTimeout(() => document.body.style.background = 'rgb(0, 0, 255)', 500)"
    page.write_text(f"<body style='margin: 0; background: red'><script>{script}</script></body>")
    image = page_screenshot.screenshot(page.as_uri())
    assert image.shape == (1200, 1800, 3)
    assert image.reshape(-1, 3).mean(axis=0).round().tolist() == [0, 0, 255]
    figure = page_screenshot.page_figure(image)
    assert (figure.get_size_inches() * 150).tolist() == [1800, 1200]


def test_without_a_browser_there_is_no_screenshot(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert page_screenshot.screenshot("http://127.0.0.1:1/") is None


def test_a_browser_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(page_screenshot, "BROWSERS", ("false",))
    with pytest.raises(RuntimeError, match="made no screenshot"):
        page_screenshot.screenshot("http://127.0.0.1:1/")
