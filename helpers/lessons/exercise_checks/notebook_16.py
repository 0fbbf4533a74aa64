"""Checks of the exercises of notebook 16: waiting times of requests, and the header of a PNG."""

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from helpers.lessons.exercises import returned

#: Of the exercise's text: milliseconds of one image and of a batch, and its images.
ONE, BATCH, IMAGES = 30, 240, 16


def exercise_1(milliseconds: float) -> None:
    """The mean time of 16 requests that are extracted one after the other."""
    assert not math.isclose(milliseconds, ONE * IMAGES), "this is the time of the last request"
    assert not math.isclose(milliseconds, BATCH), "this is the time of the batch"
    times = [ONE * place for place in range(1, IMAGES + 1)]
    assert math.isclose(milliseconds, sum(times) / IMAGES), "the first takes 30 ms, the second 60 ms, and so on"


def exercise_2(function: Callable[[bytes], tuple[int, int]]) -> None:
    """The size in a PNG's header: of images, of headers without pixels, and of other bytes."""
    rng = np.random.default_rng(16)
    for width, height in ((1, 1), (300, 7), (260, 400)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        _check_size(function, file.getvalue(), width, height)
    for width, height in ((60_000, 60_000), (2**31 - 1, 70_000)):
        _check_size(function, _header(width, height), width, height)
    jpeg = io.BytesIO()
    Image.new("RGB", (40, 30)).save(jpeg, "JPEG")
    others = {"a JPEG": jpeg.getvalue(), "no bytes": b"", "text": b"IHDR, but this is a text and not an image"}
    others |= {"a PNG cut in its header": _header(5, 5)[:20]}
    others |= {"a PNG without IHDR": _header(5, 5).replace(b"IHDR", b"IDAT")}
    for what, data in others.items():
        try:
            size = function(data)
        except ValueError:
            continue
        raise AssertionError(f"{what}: raise ValueError; your function returned {size}")


def _check_size(function: Callable[[bytes], tuple[int, int]], data: bytes, width: int, height: int) -> None:
    found = tuple(returned(function(data)))
    assert found != (height, width) or width == height, "the width comes first"
    assert found == (width, height), f"an image of {width} × {height}: your function returned {found}"


def _header(width: int, height: int) -> bytes:
    """The first 33 bytes of a PNG; the checksum is not computed."""
    sizes = width.to_bytes(4) + height.to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + sizes + bytes([8, 2, 0, 0, 0]) + bytes(4)
