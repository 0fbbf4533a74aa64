"""Reading: every kind of file becomes upright 8-bit RGB, or an error names it; batches are streamed."""

import io
import struct
import time
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from helpers.images import att_faces, reading, samples
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, batches, read_image, resize, upright_size


@pytest.fixture(scope="module")
def photo():
    """A real photograph, uint8 (h, w, 3)."""
    return read_image(samples.photos().paths[10])


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_a_photograph_as_pillow_reads_it(photo):
    with Image.open(samples.photos().paths[10]) as image:
        assert np.array_equal(photo, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo, orientation):
    """The eight orientations of the EXIF standard, each applied by hand and undone by reading."""
    lying = photo.transpose(1, 0, 2)
    turned = {
        1: photo, 2: photo[:, ::-1], 3: photo[::-1, ::-1], 4: photo[::-1],
        5: lying, 6: lying[::-1], 7: lying[::-1, ::-1], 8: lying[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(np.ascontiguousarray(turned)), format="PNG", exif=exif)
    assert np.array_equal(read_image(stored), photo)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_exif_orientation_in_every_kind_of_file(photo, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    read = read_image(encoded(lying, format=kind, exif=exif, **({} if kind == "TIFF" else {"quality": 95})))
    assert read.shape == photo.shape and np.abs(read.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_the_upright_size_is_that_of_the_read_image(tmp_path, kind, orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    content = encoded(Image.new("RGB", (40, 25)), format=kind, exif=exif)
    (tmp_path / "image").write_bytes(content)
    assert upright_size(tmp_path / "image") == read_image(content).shape[1::-1]
    assert upright_size(content) == ((25, 40) if orientation in (5, 6, 8) else (40, 25))
    with pytest.raises(UnreadableImage):
        upright_size(tmp_path / "missing")


def with_exif(image: Image.Image, block: bytes) -> bytes:
    return encoded(image, format="WEBP", lossless=True, exif=block)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("block", [b"Exif\0\0no TIFF at all", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0"])
def test_an_image_with_a_broken_exif_block_is_read(photo, block):
    assert np.array_equal(read_image(with_exif(Image.fromarray(photo), block)), photo)


@given(st.lists(st.tuples(st.integers(6, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_an_image_with_a_damaged_exif_block_is_read(damage):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 3, "an image", 72.0
    block = bytearray(exif.tobytes())
    for position, value in damage:
        block[6 + position % (len(block) - 6)] = value
    image = np.full((4, 6, 3), 90, np.uint8)
    read = read_image(with_exif(Image.fromarray(image), bytes(block)))
    assert sorted(read.shape) == [3, 4, 6] and (read == 90).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "RGB"])
def test_color_modes_become_rgb(photo, mode):
    image = Image.fromarray(photo).convert(mode)
    read = read_image(encoded(image, format="PNG"))
    assert read.shape == photo.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - np.asarray(image.convert("RGB")).astype(int)).max() <= 1


def test_transparency_becomes_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 255, 0, 0, 255
    pixels[0, 1] = 255, 0, 0, 128
    read = read_image(encoded(Image.fromarray(pixels), format="PNG"))
    assert read[0, 0].tolist() == [255, 0, 0]
    assert read[1, 1].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == [255, 127, 127]


def test_a_transparent_palette_becomes_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.putpixel((1, 0), 1)
    read = read_image(encoded(image, format="PNG", transparency=0))
    assert read[0].tolist() == [[255, 255, 255], [10, 200, 30]]


def test_cmyk_jpeg(photo):
    cmyk = Image.fromarray(photo).convert("CMYK")
    read = read_image(encoded(cmyk, format="JPEG", quality=95))
    assert np.abs(read.astype(int) - photo.astype(int)).mean() < 6


def test_adobes_inverted_cmyk_as_opencv_reads_it():
    """Photoshop stores inverted CMYK in JPEG (0 is full ink) and marks the file as Adobe's."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0], inks[8:, :, 3] = 255, 200
    stored = encoded(Image.fromarray(inks, "CMYK"), format="JPEG", quality=95)
    assert b"Adobe" in stored[:60]
    read = read_image(stored)
    reference = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(read.astype(int) - reference).max() <= 3
    assert np.abs(read[2, 2].astype(int) - (0, 255, 255)).max() < 8, "all cyan"
    assert np.abs(read[13, 2].astype(int) - 55).max() < 8, "mostly black"


def test_cielab_tiff(photo):
    """Photoshop stores such files; Pillow does not convert them by itself."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.buildTransform(srgb, lab, "RGB", "LAB").apply(Image.fromarray(photo))
    read = read_image(encoded(image, format="TIFF"))
    assert np.abs(read.astype(int) - photo).mean() < 2


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_premultiplied_transparency(mode):
    """A TIFF may store colors that are multiplied by their opacity; its tag ExtraSamples is then 1, not 2."""
    pixels = [(100,) * (len(mode) - 1) + (255,), (50,) * (len(mode) - 1) + (128,), (0,) * len(mode)]
    image = Image.new(mode, (3, 1))
    image.putdata(pixels)
    content = encoded(image, format="TIFF")
    changed = content.replace(struct.pack("<HHIH", 338, 3, 1, 2), struct.pack("<HHIH", 338, 3, 1, 1))
    assert changed != content
    # 50 of 128 is a gray level of 100 at half opacity, on white.
    assert read_image(changed)[0, :, 0].tolist() == pytest.approx([100, 177, 255], abs=1)


@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_16_bit_color(kind):
    pixels = (np.arange(48).reshape(4, 4, 3) * 1300).astype(np.uint16)
    stored = cv2.imencode(kind, pixels[:, :, ::-1])[1].tobytes()
    assert np.abs(read_image(stored) - pixels / 257).max() < 1


@pytest.mark.parametrize(
    "options", [{"format": "TIFF", "compression": "tiff_lzw"}, {"format": "BMP"}, {"format": "PPM"}]
)
def test_other_lossless_files(photo, options):
    assert np.array_equal(read_image(encoded(Image.fromarray(photo), **options)), photo)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP"):
        data = encoded(frames[0], format=kind, save_all=True, append_images=frames[1:], lossless=True)
        assert read_image(data)[0, 0].tolist() == [255, 0, 0]


def test_pgm_of_the_faces():
    assert read_image(att_faces.load().paths[0]).shape == (112, 92, 3)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_jpeg(tmp_path, share):
    data = samples.photos().paths[10].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableImage, match=r"cut\.jpg"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP"}, {"format": "TIFF"}, {"format": "GIF"}])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_truncated_files_of_other_kinds(photo, options, share):
    data = encoded(Image.fromarray(photo), **options)
    with pytest.raises(UnreadableImage):
        read_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("content", [b"", b"just a text", b"\xff\xd8\xff", b"%PDF-1.7"])
def test_files_that_are_not_images(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"x\.jpg is not an image|x\.jpg cannot be decoded"):
        read_image(tmp_path / "x.jpg")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UnreadableImage, match=r"missing\.jpg does not exist"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(UnreadableImage, match=tmp_path.name):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [60_000, 11_000])
def test_a_decompression_bomb_is_rejected_before_it_is_decoded(side):
    """A PNG of 70 bytes that claims 60,000 × 60,000 pixels; about the smaller one Pillow itself only warns."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(UnreadableImage, match="bomb|pixels"):
        read_image(bomb)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


# ---- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "scale"), [(1.0, 1), (0.99, 2), (0.26, 2), (0.2, 4), (0.02, 8)])
@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "MPO"}])
def test_a_large_jpeg_is_read_at_a_reduced_size(photo, limit, scale, options):
    """The limit counts the pixels after decoding; the smallest reduction below it is chosen."""
    content = encoded(Image.fromarray(photo), quality=95, **options)
    height, width = photo.shape[:2]
    read = read_image(content, max_pixels=round(limit * width * height))
    assert read.shape == (-(-height // scale), -(-width // scale), 3)
    expected = np.asarray(Image.fromarray(photo).reduce(scale), int)
    assert np.abs(read - expected).mean() < 4


def test_a_reduced_jpeg_is_upright(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(photo[:100, :158])  # even sides, which halve exactly
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    read = read_image(encoded(lying, format="JPEG", exif=exif, quality=95), max_pixels=5000)
    assert read.shape == (50, 79, 3)
    assert np.abs(read - np.asarray(upright.reduce(2), int)).mean() < 4


@pytest.mark.parametrize(("at_least", "limit", "scale"), [(100, 1.0, 1), (40, 1.0, 4), (100, 0.3, 2), (40, 0.02, 8)])
def test_the_stronger_of_two_reductions_counts(at_least, limit, scale):
    image = Image.new("RGB", (240, 160), "red")
    read = read_image(encoded(image, format="JPEG"), max_pixels=round(240 * 160 * limit), at_least=at_least)
    assert read.shape == (160 // scale, 240 // scale, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_large_image_of_another_format_is_named_with_its_size_and_the_limit(tmp_path, kind):
    (tmp_path / "scan.img").write_bytes(encoded(Image.new("RGB", (70, 30)), format=kind))
    message = r"scan\.img has 70 × 30 pixels, more than 2,000\. .*save it as JPEG, which can have 128,000 pixels"
    with pytest.raises(UnreadableImage, match=message):
        read_image(tmp_path / "scan.img", max_pixels=2000)
    assert read_image(tmp_path / "scan.img", max_pixels=2100).shape == (30, 70, 3)


def test_a_jpeg_that_cannot_be_reduced_enough_is_named():
    content = encoded(Image.new("RGB", (800, 800)), format="JPEG")
    with pytest.raises(UnreadableImage, match=r"800 × 800 pixels, and at 1/8 of both sides still more than 9,999\."):
        read_image(content, max_pixels=9999)
    assert read_image(content, max_pixels=10_000).shape == (100, 100, 3)


@pytest.mark.parametrize("side", [16_000, 30_000, 65_500])
def test_a_jpeg_with_the_header_of_a_bomb_is_rejected(side):
    """256, 900 and 4,290 megapixels: beyond the limit of 250 megapixels, at whatever scale."""
    content = encoded(Image.new("RGB", (8, 8)), format="JPEG")
    start = content.index(b"\xff\xc0") + 5
    bomb = content[:start] + struct.pack(">HH", side, side) + content[start + 4 :]
    with pytest.raises(UnreadableImage, match=f"{side} × {side} pixels, more than 250,000,000"):
        read_image(bomb)


@pytest.mark.parametrize("shape", [(50, 200), (200, 50), (1, 1), (3, 400), (224, 224)])
@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
def test_resize_returns_the_size(shape, rule):
    pixels = np.full((*shape, 3), 200, np.uint8)
    assert resize(pixels, 64, rule).shape == (64, 64, 3)
    assert resize(pixels, (40, 30), rule).shape == (40, 30, 3)


def test_resize_rules_by_hand():
    """Left half black, right half white, twice as wide as high."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    squash, crop, pad = (resize(pixels, 50, rule)[..., 0] for rule in ("squash", "crop", "pad"))
    assert (squash[:, 5] == 0).all() and (squash[:, 45] == 255).all()
    # The crop keeps the center: 50 of the 114 columns that 57 rows leave.
    assert (crop[:, 0] == 0).all() and (crop[:, -1] == 255).all()
    # The long side fits, so 12 rows above and below are white.
    assert (pad[:12] == 255).all() and (pad[-12:] == 255).all() and (pad[13:37, 5] == 0).all()


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (2, 400_000)])
@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
def test_very_long_images_stay_visible_and_are_fast(shape, rule):
    """A padded black strip is a line on white; a cropped one is not enlarged as a whole."""
    started = time.perf_counter()
    square = resize(np.zeros((*shape, 3), np.uint8), 64, rule)
    assert time.perf_counter() - started < 1
    dark = (square < 128).mean()
    assert dark == pytest.approx(1 / 64) if rule == "pad" else dark == 1


def test_a_long_image_is_cropped_in_its_middle():
    """A red strip with a little blue in the middle: the crop shows only the blue."""
    strip = np.zeros((10, 2000, 3), np.uint8)
    strip[..., 0] = 255
    strip[:, 990:1010] = 0, 0, 255
    assert (resize(strip, 32, "crop") == (0, 0, 255)).all()


def test_one_pixel_and_odd_sides():
    dot = np.array([[[10, 200, 30]]], np.uint8)
    for rule in reading.RESIZE_RULES:
        assert (resize(dot, 33, rule) == (10, 200, 30)).all()
    padded = resize(np.zeros((10, 5, 3), np.uint8), 31, "pad")
    columns = np.flatnonzero(padded[15, :, 0] < 128)
    assert len(columns) == 16 and columns[0] in (7, 8) and (padded[:, 0] == 255).all()


@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
@pytest.mark.parametrize("size", [64, (40, 90)])
def test_images_are_resized_while_they_are_read(photo, tmp_path, rule, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(photo)
    files = [
        samples.photos().paths[10],
        encoded(image, format="JPEG", exif=exif),
        *(encoded(image.convert(mode), format="PNG") for mode in ("L", "P", "1", "RGBA", "I;16")),
        encoded(image.convert("CMYK"), format="JPEG"),
    ]

    def resized(image):
        return resize(image, size, rule)

    for file in files:
        assert np.array_equal(reading.decode(file, resized), resize(read_image(file), size, rule))
    with pytest.raises(UnreadableImage, match="no.png"):
        reading.decode(tmp_path / "no.png", resized)


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match="squash, crop, pad"):
        resize(np.zeros((2, 2, 3), np.uint8), 4, "stretch")


def test_batches_keep_order_and_count(photo):
    images = samples.photos().subset(range(11))
    found = list(batches(images, 32, batch_size=4))
    assert [len(rows) for rows, _ in found] == [4, 4, 3]
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(11))
    assert np.array_equal(found[2][1][2], resize(photo, 32))


def test_broken_files_are_skipped_with_one_warning(tmp_path):
    files = list(samples.photos().paths[:6])
    for row in (1, 4):
        broken = tmp_path / f"broken {row}.jpg"
        broken.write_bytes(b"oh")
        files[row] = broken
    with pytest.warns(UnreadableImageWarning) as caught:
        rows = np.concatenate([rows for rows, _ in batches(files, 16, batch_size=2)])
    assert rows.tolist() == [0, 2, 3, 5]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "2 of 6" in message and "broken 1.jpg" in message and "broken 4.jpg" in message
    with pytest.raises(UnreadableImage, match="broken 1"):
        list(batches(files, 16, batch_size=2, strict=True))


def test_many_broken_files_are_counted_and_ten_are_named(tmp_path):
    for i in range(13):
        (tmp_path / f"broken {i:02}.jpg").write_bytes(b"%d" % i)
    with pytest.warns(UnreadableImageWarning, match="13 of 13(.|\n)*broken 09(.|\n)*and 3 more") as caught:
        assert list(batches(sorted(tmp_path.iterdir()), 16, batch_size=4)) == []
    assert len(caught) == 1 and "broken 10" not in str(caught[0].message)


def test_no_images_and_an_invalid_batch_size():
    assert list(batches([], 16)) == []
    with pytest.raises(ValueError, match="batch_size"):
        list(batches([], 16, batch_size=0))


def test_batches_of_bytes_can_be_closed_early():
    data = samples.photos().paths[0].read_bytes()
    stream = batches([data] * 50, (20, 30), "pad", batch_size=3)
    rows, pixels = next(stream)
    assert rows.tolist() == [0, 1, 2] and pixels.shape == (3, 20, 30, 3)
    stream.close()


def test_no_warning_about_readable_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(batches(samples.photos().subset(range(3)), 16))


def test_memory_does_not_grow_with_the_number_of_images():
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
