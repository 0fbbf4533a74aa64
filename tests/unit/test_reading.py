"""Reading: every kind of file becomes upright 8-bit RGB, or an error that names it; batches stream."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers.pictures import att_faces, reading, samples
from helpers.pictures.reading import UnreadablePicture, UnreadablePictureWarning, batches, read_picture, resize


@pytest.fixture(scope="module")
def photo():
    """A real photograph, uint8 (h, w, 3)."""
    return read_picture(samples.photos().paths[10])


def encoded(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def test_a_photograph_as_pillow_reads_it(photo):
    with Image.open(samples.photos().paths[10]) as picture:
        assert np.array_equal(photo, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo, orientation):
    """The eight turns of the EXIF standard, each made by hand and undone by reading."""
    lying = photo.transpose(1, 0, 2)
    turned = {
        1: photo, 2: photo[:, ::-1], 3: photo[::-1, ::-1], 4: photo[::-1],
        5: lying, 6: lying[::-1], 7: lying[::-1, ::-1], 8: lying[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(np.ascontiguousarray(turned)), format="PNG", exif=exif)
    assert np.array_equal(read_picture(stored), photo)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "RGB"])
def test_colour_modes_become_rgb(photo, mode):
    picture = Image.fromarray(photo).convert(mode)
    read = read_picture(encoded(picture, format="PNG"))
    assert read.shape == photo.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - np.asarray(picture.convert("RGB")).astype(int)).max() <= 1


def test_transparency_lies_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 255, 0, 0, 255
    pixels[0, 1] = 255, 0, 0, 128
    read = read_picture(encoded(Image.fromarray(pixels), format="PNG"))
    assert read[0, 0].tolist() == [255, 0, 0]
    assert read[1, 1].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == [255, 127, 127]


def test_transparent_palette_lies_on_white():
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.putpixel((1, 0), 1)
    read = read_picture(encoded(picture, format="PNG", transparency=0))
    assert read[0].tolist() == [[255, 255, 255], [10, 200, 30]]


def test_cmyk_jpeg(photo):
    cmyk = Image.fromarray(photo).convert("CMYK")
    read = read_picture(encoded(cmyk, format="JPEG", quality=95))
    assert np.abs(read.astype(int) - photo.astype(int)).mean() < 6


@pytest.mark.parametrize("level, expected", [(65535, 255), (32768, 128), (257, 1), (0, 0)])
def test_16_bit_grey_keeps_its_brightness(level, expected):
    """A dark picture must stay dark: the range is that of 16 bits, not that of the picture."""
    picture = Image.fromarray(np.full((3, 3), level, np.uint16))
    assert (read_picture(encoded(picture, format="PNG")) == expected).all()


def test_float_tiff():
    picture = Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], np.float32))
    assert read_picture(encoded(picture, format="TIFF"))[..., 0].tolist() == [[0, 128], [255, 64]]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP"):
        data = encoded(frames[0], format=kind, save_all=True, append_images=frames[1:], lossless=True)
        assert read_picture(data)[0, 0].tolist() == [255, 0, 0]


def test_pgm_of_the_faces():
    assert read_picture(att_faces.load().paths[0]).shape == (112, 92, 3)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_jpeg(tmp_path, share):
    data = samples.photos().paths[10].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadablePicture, match=r"cut\.jpg"):
        read_picture(tmp_path / "cut.jpg")


def test_what_is_no_file(tmp_path):
    with pytest.raises(UnreadablePicture, match=r"gone\.jpg does not exist"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(UnreadablePicture, match=tmp_path.name):
        read_picture(tmp_path)


def test_decompression_bomb_is_refused_before_it_is_decoded():
    """A PNG that says it has 60,000 × 60,000 pixels, in 70 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    tracemalloc.start()
    with pytest.raises(UnreadablePicture, match="bomb|pixels"):
        read_picture(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(50, 200), (200, 50), (1, 1), (3, 400), (224, 224)])
@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
def test_resize_gives_the_size(shape, rule):
    pixels = np.full((*shape, 3), 200, np.uint8)
    assert resize(pixels, 64, rule).shape == (64, 64, 3)
    assert resize(pixels, (40, 30), rule).shape == (40, 30, 3)


def test_resize_rules_by_hand():
    """Left half black, right half white, twice as wide as high."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    squash, crop, pad = (resize(pixels, 50, rule)[..., 0] for rule in ("squash", "crop", "pad"))
    assert (squash[:, 5] == 0).all() and (squash[:, 45] == 255).all()
    # The crop keeps the centre: 50 of the 114 columns that 57 rows leave.
    assert (crop[:, 0] == 0).all() and (crop[:, -1] == 255).all()
    # The long side fits, so 12 rows above and below are white.
    assert (pad[:12] == 255).all() and (pad[-12:] == 255).all() and (pad[13:37, 5] == 0).all()


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="squash, crop, pad"):
        resize(np.zeros((2, 2, 3), np.uint8), 4, "stretch")


def test_batches_keep_order_and_count(photo):
    images = samples.photos().subset(range(11))
    seen = list(batches(images, 32, batch_size=4))
    assert [len(rows) for rows, _ in seen] == [4, 4, 3]
    assert np.concatenate([rows for rows, _ in seen]).tolist() == list(range(11))
    assert np.array_equal(seen[2][1][2], resize(photo, 32))


def test_broken_files_are_skipped_with_one_warning(tmp_path):
    files = list(samples.photos().paths[:6])
    for place in (1, 4):
        broken = tmp_path / f"broken {place}.jpg"
        broken.write_bytes(b"oh")
        files[place] = broken
    with pytest.warns(UnreadablePictureWarning) as caught:
        rows = np.concatenate([rows for rows, _ in batches(files, 16, batch_size=2)])
    assert rows.tolist() == [0, 2, 3, 5]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "2 of 6" in message and "broken 1.jpg" in message and "broken 4.jpg" in message
    with pytest.raises(UnreadablePicture, match="broken 1"):
        list(batches(files, 16, batch_size=2, strict=True))


def test_no_warning_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(batches(samples.photos().subset(range(3)), 16))


def test_memory_does_not_grow_with_the_number_of_pictures():
    files = samples.photos().paths[:10]

    def peak(times):
        tracemalloc.start()
        for _ in batches(files * times, 128, batch_size=8):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)
    assert peak(20) < 1.5 * peak(4)
