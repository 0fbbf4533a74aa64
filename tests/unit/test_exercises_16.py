"""The checks of notebook 16 accept correct solutions, and name the error of wrong ones."""

import io

import pytest
from PIL import Image

from helpers.lessons.exercises import check_exercise

BEGIN = b"\x89PNG\r\n\x1a\n"


def png_size(data):
    if len(data) < 24 or data[:8] != BEGIN or data[12:16] != b"IHDR":
        raise ValueError("not the beginning of a PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def reversed_size(data):
    return png_size(data)[::-1]


def little_endian(data):
    png_size(data)
    return int.from_bytes(data[16:20], "little"), int.from_bytes(data[20:24], "little")


def unchecked(data):
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def without_length(data):
    if data[:8] != BEGIN or data[12:16] != b"IHDR":
        raise ValueError("not a PNG")
    return unchecked(data)


def without_chunk(data):
    if len(data) < 24 or data[:8] != BEGIN:
        raise ValueError("not a PNG")
    return unchecked(data)


def decoding(data):
    return Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (255, "right ✓"),
        (255.0, "right ✓"),
        (480, "of the last request"),
        (240, "of the batch"),
        (30, "the second 60 ms"),
    ],
)
def test_the_mean_waiting_time(value, hint, capsys):
    assert check_exercise("16.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_the_size_of_a_png_is_accepted():
    assert check_exercise("16.2", png_size) is True
    assert check_exercise("16.2", lambda data: list(png_size(data))) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (reversed_size, "the width comes first"),
        (little_endian, "an image of 1 × 1"),
        (unchecked, "a JPEG: raise ValueError"),
        (without_length, "cut in its header: raise ValueError"),
        (without_chunk, "without IHDR: raise ValueError"),
        (decoding, "your code stopped with"),
    ],
)
def test_a_wrong_size_gets_a_hint(function, hint, capsys):
    assert check_exercise("16.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("16.2", lambda data: None) is None
