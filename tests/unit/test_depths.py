"""Deep gray images: right pixels for all depths, signs, byte orders and meanings of zero, and the cache of features."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from helpers.features import file_hashes
from helpers.features.color_shape import Pixels
from helpers.features.file_hashes import content_hashes
from helpers.files import content_hash
from helpers.images import depths, samples, thumbnails
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, read_image
from helpers.service.content import UploadedImage

UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(values, order="<", photometric=1, bits=None, **tags) -> bytes:
    """An uncompressed gray TIFF of (height, width) values; tags by number, such as ``t281=4095``."""
    values = np.asarray(values)
    sample = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    floats = {int(name[1:]): value for name, value in tags.items() if isinstance(value, float)}
    entries = {
        256: (4, width), 257: (4, height), 258: (3, bits or 8 * values.itemsize), 259: (3, 1), 262: (3, photometric),
        273: (4, 8), 277: (3, 1), 278: (4, height), 279: (4, len(data)), 339: (3, sample),
    }  # fmt: skip
    entries |= {int(name[1:]): (3 if value >= 0 else 8, value) for name, value in tags.items() if name[1:].isdigit()}
    packed = b""
    for number in sorted(entries):
        kind, value = (11, floats[number]) if number in floats else entries[number]
        code = {3: "Hxx", 4: "I", 8: "hxx", 11: "f"}[kind]
        packed += struct.pack(f"{order}HHI{code}", number, kind, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(entries)) + packed + bytes(4)


def png(values) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint16)).save(written, "PNG")
    return written.getvalue()


def gray(content: bytes) -> list[int]:
    """The values of the first row, after the three channels were found equal."""
    pixels = read_image(content)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


ramp = {bits: np.array([[0, 2**bits // 4, 2**bits // 2, 2**bits - 1]], np.uint16) for bits in (8, 10, 12, 14, 16)}
#: A quarter, a half and the whole of 8 to 16 bits, as 8 bits.
EXPECTED = {8: [0, 64, 128, 255], 10: [0, 64, 128, 255], 12: [0, 64, 128, 255], 14: [0, 64, 128, 255]} | {
    16: [0, 64, 128, 255]
}


@pytest.mark.parametrize("bits", ramp)
@pytest.mark.parametrize("kind", ["PNG", "TIFF, little-endian", "TIFF, big-endian", "TIFF, 32 bits", "TIFF, float"])
def test_the_depth_of_the_values_is_white(bits, kind):
    """12 bits in a file of 16 bits: 4095 is white, not nearly black."""
    values = ramp[bits]
    content = {
        "PNG": lambda: png(values),
        "TIFF, little-endian": lambda: tiff(values),
        "TIFF, big-endian": lambda: tiff(values, ">"),
        "TIFF, 32 bits": lambda: tiff(values.astype(np.uint32), ">"),
        "TIFF, float": lambda: tiff(values.astype(np.float32)),
    }[kind]()
    assert gray(content) == EXPECTED[bits]


@pytest.mark.parametrize(
    ("top", "white"), [(65535, 65535), (16384, 65535), (16383, 16383), (4000, 4095), (1024, 4095), (200, 255), (0, 255)]
)
def test_white_is_the_end_of_a_depth_and_not_the_brightest_value(top, white):
    """A 16-bit photograph with one value above a quarter of the range is not stretched."""
    assert gray(png([[0, top]])) == [0, round(top / white * 255)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_zero_is_white_if_the_file_says_so(order, dtype):
    """Photometric interpretation 0: X-rays and faxes."""
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.array([[0, top]], dtype)
    assert gray(tiff(values, order, photometric=0)) == [255, 0]
    assert gray(tiff(values, order, photometric=1)) == [0, 255]


def test_zero_is_white_in_bilevel_files():
    bilevel = np.array([[0b10100000]], np.uint8)
    for photometric, expected in ((0, [0, 255, 0]), (1, [255, 0, 255])):
        content = tiff(bilevel, photometric=photometric, bits=1, t256=3)
        assert gray(content) == expected


def test_twelve_bits_with_zero_as_white():
    assert gray(tiff(ramp[12], photometric=0)) == [255, 191, 127, 0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_values(order):
    """Without a negative value they count as unsigned; with one, black is the smallest value of the depth."""
    assert gray(tiff(np.array([[0, 1024, 4095]], np.int16), order)) == [0, 64, 255]
    assert gray(tiff(np.array([[0, 16384, 32767]], np.int16), order)) == [0, 128, 255]
    assert gray(tiff(np.array([[-2048, 0, 2047]], np.int16), order)) == [0, 128, 255]
    assert gray(tiff(np.array([[-32768, 0, 32767]], np.int16), order)) == [0, 128, 255]
    assert gray(tiff(np.array([[-128, 0, 127]], np.int8), order)) == [0, 128, 255]
    assert gray(tiff(np.array([[-2048, 0, 2047]], np.int16), order, photometric=0)) == [255, 127, 0]
    assert gray(tiff(np.array([[-(2**31), 0, 2**31 - 1]], np.int32), order)) == [0, 128, 255]


@pytest.mark.parametrize("order", ["<", ">"])
def test_32_bits(order):
    assert gray(tiff(np.array([[0, 2**31, 2**32 - 1]], np.uint32), order)) == [0, 128, 255]
    assert gray(tiff(np.array([[0, 2**23, 2**24 - 1]], np.uint32), order)) == [0, 128, 255]


def test_what_the_tags_say():
    dark = np.array([[0, 500]], np.uint16)
    assert gray(tiff(dark)) == [0, 125], "10 bits contain the values"
    assert gray(tiff(dark, t281=4095)) == [0, 31], "the sensor has 12 bits: MaxSampleValue"
    assert gray(tiff(np.array([[0.0, 4.0, 8.0]], np.float32), t340=0.0, t341=8.0)) == [0, 128, 255]
    assert gray(tiff(np.array([[-1024, 0, 1024]], np.int16), t340=-1024, t341=1024)) == [0, 128, 255]
    assert gray(tiff(dark, t281=0)) == [0, 125], "a wrong tag"


def test_packed_12_bits():
    """Two pixels in three bytes; the range is known, also of a dark image."""
    packed = np.array([[0x00, 0x08, 0x00]], np.uint8)  # 0x000, 0x800
    assert gray(tiff(packed, bits=12, t256=2)) == [0, 128]
    assert gray(tiff(np.array([[0x00, 0x00, 0xFF]], np.uint8), bits=12, t256=2)) == [0, 16]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ([-0.02, 1.03, 0.5], [0, 255, 128]),  # interpolation overshoots
        ([0, 51, 255], [0, 51, 255]),
        ([np.nan, np.inf, -np.inf, 255], [0, 0, 0, 255]),
        ([-3, 255, 51], [0, 255, 51]),
        ([0, 0], [0, 0]),
    ],
)
def test_floats(values, expected):
    assert gray(tiff(np.array([values], np.float32))) == expected


@pytest.mark.parametrize("values", [[-1, 1], [0, 8], [0, 1e6], [-500, 3000], [np.nan, np.nan], [1.2, 0]])
def test_floats_of_an_unknown_range_are_named(tmp_path, values):
    (tmp_path / "height map.tif").write_bytes(tiff(np.array([values], np.float32)))
    with pytest.raises(UnreadableImage, match=r"height map\.tif is not understood: .* no known range"):
        read_image(tmp_path / "height map.tif")


def test_a_kind_of_tiff_that_no_decoder_knows_is_named(tmp_path):
    (tmp_path / "complex.tif").write_bytes(tiff(ramp[16], t339=6))
    with pytest.raises(UnreadableImage, match=r"complex\.tif is .* not understood"):
        read_image(tmp_path / "complex.tif")


def test_files_that_tell_their_range_keep_it():
    """PGM has its largest value in its header."""
    assert gray(b"P5 2 1 4095 " + struct.pack(">HH", 0, 500)) == [0, 31]
    assert gray(b"P5 2 1 65535 " + struct.pack(">HH", 0, 500)) == [0, 2]
    written = io.BytesIO()
    Image.fromarray(np.full((64, 64), 500, np.uint16)).save(written, "JPEG2000", irreversible=False)
    assert set(gray(written.getvalue())) == {2}


def test_orientation_and_thumbnail_of_a_deep_image(tmp_path):
    values = np.zeros((40, 80), np.uint16)
    values[:, 40:] = 4095
    (tmp_path / "x.tif").write_bytes(tiff(values, photometric=0, t274=6))
    pixels = read_image(tmp_path / "x.tif")
    assert pixels.shape == (80, 40, 3) and pixels[0, 0, 0] == 255 and pixels[79, 0, 0] == 0
    with Image.open(io.BytesIO(thumbnails.render(tmp_path / "x.tif", 20))) as small:
        assert small.size == (10, 20) and small.getpixel((5, 2))[0] > 240 and small.getpixel((5, 17))[0] < 15


@pytest.mark.parametrize(
    "content", [png([[0, 2048, 4095]]), tiff(np.array([[4095, 2047, 0]], np.uint16), photometric=0)]
)
def test_the_service_reads_deep_images_alike(content):
    upload = UploadedImage(content)
    assert upload.decode(upload.inspect(100))[0, :, 0].tolist() == [0, 128, 255]


def test_a_large_image_is_converted_in_parts():
    values = np.random.default_rng(0).integers(0, 4096, (1100, 1000)).astype(np.uint16)
    assert (read_image(png(values))[..., 0] == np.rint(values * (255 / 4095))).all()


# ---- cached features --------------------------------------------------------------------------------


def test_only_deep_images_have_another_key_than_their_content(tmp_path, own_cache):
    photo = read_image(samples.photos().paths[0])
    for name in ("a.jpg", "a.png", "a.gif", "a.webp", "a.bmp", "a.ppm"):
        Image.fromarray(photo).save(tmp_path / name)
    (tmp_path / "16 bits.ppm").write_bytes(b"P5 1 1 65535 ab")
    unchanged = sorted(tmp_path.iterdir())
    assert content_hashes(unchanged) == [content_hash(file) for file in unchanged]
    (tmp_path / "b.png").write_bytes(png([[1, 2]]))
    (tmp_path / "b.tif").write_bytes(tiff(ramp[12]))
    (tmp_path / "tiff named.jpg").write_bytes(tiff(ramp[10], ">"))
    changed = [tmp_path / name for name in ("b.png", "b.tif", "tiff named.jpg")]
    hashes = content_hashes(changed)
    assert len(set(hashes)) == 3 and {len(each) for each in hashes} == {16}
    assert not set(hashes) & {content_hash(file) for file in changed}


def test_features_of_deep_images_are_computed_again_after_a_new_version(tmp_path, own_cache, monkeypatch):
    """Features of an earlier version are not used, also if the hash of the unchanged file is cached."""
    now = file_hashes.time.time_ns
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now() + 10 * file_hashes.SETTLED_NS)
    (tmp_path / "deep.tif").write_bytes(tiff(ramp[12]))
    Image.fromarray(read_image(samples.photos().paths[0])).save(tmp_path / "photo.png")
    images = ImageSet("two", tuple(sorted(tmp_path.glob("*.*"))), np.array([-1, -1]), ())
    extractor = Pixels()
    for version, computed in ((2, 2), (2, 2), (3, 3)):
        monkeypatch.setattr(depths, "VERSION", version)
        extractor.extract(images)
        assert extractor.computed == computed
