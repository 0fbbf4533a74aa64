"""Thumbnails: small, upright JPEG files, cached until a file changes."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from helpers.images import samples, thumbnails
from helpers.images.reading import UnreadableImage, read_image


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(("longest", "size"), [(160, (160, 80)), (400, (400, 200)), (1000, (400, 200))])
def test_the_longest_side_and_the_aspect_ratio(longest, size):
    pixels = np.full((200, 400, 3), (200, 40, 40), np.uint8)
    image = opened(thumbnails.encode(pixels, longest))
    assert image.size == size, "not enlarged"
    np.testing.assert_allclose(np.asarray(image, int).reshape(-1, 3).mean(axis=0), (200, 40, 40), atol=2)


def test_a_thumbnail_is_upright_and_has_no_metadata(tmp_path):
    pixels = read_image(samples.photos().paths[0])
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "a.png", exif=exif)
    content = thumbnails.render(tmp_path / "a.png", 64)
    image = opened(content)
    assert b"camera" not in content and not image.getexif()
    expected = Image.fromarray(pixels)
    expected.thumbnail((64, 64), Image.Resampling.LANCZOS)
    assert image.size == expected.size
    assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).mean() < 6


def test_thumbnails_are_cached_until_the_file_changes(own_cache, tmp_path, monkeypatch):
    path, rendered = tmp_path / "a.png", []
    Image.new("RGB", (300, 200), "red").save(path)
    render = thumbnails.render
    monkeypatch.setattr(thumbnails, "render", lambda path, longest: rendered.append(longest) or render(path, longest))
    first = thumbnails.get(path, 64)
    assert thumbnails.get(path, 64) == first == render(path, 64) and rendered == [64]
    assert opened(thumbnails.get(path, 128)).size == (128, 85) and rendered == [64, 128]
    before = [thumbnails.tag(path, longest) for longest in (64, 128)]
    Image.new("RGB", (300, 200), "blue").save(path)
    os.utime(path, ns=(1, 1))
    after = thumbnails.tag(path, 64)
    assert after not in before
    assert opened(thumbnails.get(path, 64)).getpixel((9, 9))[2] > 200 and len(rendered) == 3
    kept = list((own_cache / "thumbnails").rglob("*.jpg"))
    assert len(kept) == 3
    thumbnails.forget([*before, after, "0" * 32])
    assert [file for file in (own_cache / "thumbnails").rglob("*") if file.is_file()] == []


def test_a_cache_that_cannot_be_written_gives_one_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    for path in samples.photos().paths[:5]:
        assert opened(thumbnails.get(path, 64))
    assert "LOOKALIKE_CACHE" in caplog.text and len(caplog.records) == 1


def test_a_file_that_is_missing_or_damaged(own_cache, tmp_path):
    for path in (tmp_path / "missing.png", tmp_path / "damaged.png"):
        for _ in range(2):
            with pytest.raises(UnreadableImage, match=path.stem):
                thumbnails.get(path, 64)
        (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert not list(own_cache.rglob("*.jpg"))
