"""A screenshot of a web page of this computer, by an installed Chromium or Chrome."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from helpers.images.reading import read_image

#: Names of the browser's program.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: The size of the window in CSS pixels, and the pixels of the screenshot per CSS pixel.
WIDTH, HEIGHT, SCALE = 1200, 800, 1.5
#: Milliseconds that scripts and requests of the page may take. The time stands still while a request is open.
_BUDGET = 10_000
#: Keeps the browser off other computers.
_ARGUMENTS = (
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip


def screenshot(url: str) -> np.ndarray | None:
    """Load a page and return what a window shows: uint8 (1200, 1800, 3) RGB, or None without a browser.

    Raises RuntimeError: the browser failed; the message ends with the last lines of its errors.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.png"
        options = [
            f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={file}",
            f"--force-device-scale-factor={SCALE:g}", f"--virtual-time-budget={_BUDGET}",
        ]  # fmt: skip
        # Chromium has no sandbox for the user root.
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--no-sandbox")
        run = subprocess.run(
            [program, *_ARGUMENTS, *options, url],
            capture_output=True, text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
        if not file.is_file():
            raise RuntimeError(f"{program} made no screenshot of {url}: {run.stderr[-500:]}")
        return read_image(file)


def page_figure(image: np.ndarray) -> Figure:
    """A figure with only a screenshot. At 150 dots per inch, it has the pixels of the screenshot."""
    figure = Figure(figsize=(image.shape[1] / 150, image.shape[0] / 150))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image)
    axes.axis("off")
    return figure
