"""Damaged files of every readable format: an image, or an error that names the file; no command stops."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile

from helpers.cli import main as cli
from helpers.cli.common import BAD_INPUT, OK
from helpers.images import reading, samples
from helpers.images.formats import readable_formats
from helpers.images.reading import UnreadableImage, read_image


def photo(side: int = 24) -> Image.Image:
    """A small photograph with an odd aspect ratio."""
    with Image.open(samples.photos().paths[9]) as image:
        return image.convert("RGB").resize((side, side * 3 // 4))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written_by_pillow() -> dict[str, bytes]:
    """A file of each readable format that Pillow writes, in the first mode that the format has, and variants."""
    files = {}
    for kind in sorted({*readable_formats(), "MPO"} & set(Image.SAVE)):
        for mode in ("RGB", "RGBA", "P", "L", "1"):
            try:
                files[kind] = encoded(photo().convert(mode), kind)
                break
            except (OSError, ValueError):
                continue
    deep = Image.fromarray(np.arange(432, dtype=np.uint16).reshape(18, 24) * 150)
    frames = [photo().rotate(90 * turn, expand=False) for turn in (1, 2)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return files | {
        "JPEG, progressive": encoded(photo(), "JPEG", progressive=True, exif=exif),
        "JPEG, CMYK": encoded(photo().convert("CMYK"), "JPEG"),
        "PNG, palette": encoded(photo().convert("P"), "PNG", transparency=3),
        "PNG, 16 bits": encoded(deep, "PNG"),
        "PNG, gray and transparent": encoded(photo().convert("L"), "PNG", transparency=7),
        "PNG, animated": encoded(photo(), "PNG", save_all=True, append_images=frames),
        "GIF, animated": encoded(photo(), "GIF", save_all=True, append_images=frames, transparency=1),
        "WEBP, lossless": encoded(photo().convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "TIFF, 16 bits": encoded(deep, "TIFF"),
        "TIFF, float": encoded(Image.fromarray(np.linspace(0, 1, 432, dtype=np.float32).reshape(18, 24)), "TIFF"),
        "TIFF, LZW": encoded(photo(), "TIFF", compression="tiff_lzw", exif=exif),
        "TIFF, JPEG": encoded(photo(), "TIFF", compression="jpeg"),
        "TIFF, CIELab": encoded(Image.frombytes("LAB", (24, 18), bytes(range(256)) * 5 + bytes(16)), "TIFF"),
        "TIFF, bilevel": encoded(photo().convert("1"), "TIFF", compression="group4"),
        "ICO, BMP": encoded(photo(), "ICO", bitmap_format="bmp"),
        "DDS, DXT1": encoded(photo(), "DDS", pixel_format="DXT1"),
        "TGA, run lengths": encoded(photo(), "TGA", compression="tga_rle"),
        "AVIF, transparent": encoded(photo().convert("RGBA"), "AVIF", quality=90),
    }


def made_by_hand() -> dict[str, bytes]:
    """Files of formats that Pillow only reads, 4 × 4 pixels."""
    gray, color = bytes(range(0, 256, 16)), bytes(range(48)) * 4
    bitmap = encoded(photo(8).resize((4, 8)), "DIB")
    pcx = encoded(photo(), "PCX")
    header = bytearray(1024)
    header[:4], header[416:420], header[424:428] = b"\x80\xe8\0\0", struct.pack("<HH", 4, 4), struct.pack("<HH", 14, 2)
    frame = struct.pack("<IHHQ", 38, 0xF1FA, 1, 0) + struct.pack("<IH", 22, 16) + gray
    fli = struct.pack("<IHHHHHHI", 166, 0xAF12, 1, 4, 4, 8, 3, 5).ljust(128, b"\0") + frame
    xpm = b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #ff0000",\n"b c #00ff00",\n"ab",\n"ba",\n};\n'
    return {
        "CUR": struct.pack("<HHH", 0, 2, 1) + struct.pack("<BBBBHHII", 4, 4, 0, 0, 0, 0, len(bitmap), 22) + bitmap,
        "DCX": struct.pack("<III", 0x3ADE68B1, 12, 0) + pcx,
        "FLI": fli,
        "FTEX": b"FTEX" + struct.pack("<8i", 1, 4, 4, 1, 1, 1, 32, 48) + color[:48],
        "GBR": struct.pack(">7I", 33, 2, 4, 4, 1, 0x47494D50, 10) + b"name\0" + gray,
        "PCD": bytes(2048) + b"PCD_" + bytes(96 * 2048 - 2052 + 3 * 768 * 512),
        "PIXAR": bytes(header) + color[:48],
        "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3) + bytes(12) + b"\0\0" + color[:48],
        "SUN": struct.pack(">8I", 0x59A66A95, 4, 4, 24, 48, 1, 0, 0) + color[:48],
        "XPM": xpm,
        "XVTHUMB": b"P7 332\n#XVVERSION\n#END_OF_COMMENTS\n4 4 255\n" + gray,
    }  # fmt: skip


FILES = written_by_pillow() | made_by_hand()


def damaged(content: bytes) -> list[bytes]:
    """20 truncated files, 40 with one changed byte, and one with a sector of zeros, in a small file a part of it."""
    rng = np.random.default_rng(0)
    size = len(content)
    found = [content[: size * cut // 20] for cut in range(20)]
    # Most errors of a decoder come from the header.
    positions = [*rng.integers(0, min(size, 80), 20), *rng.integers(0, size, 20)]
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        found.append(bytes(changed))
    start = size // 2
    length = min(512, size // 4)
    return [*found, content[:start] + bytes(length) + content[start + length :]]


def test_every_format_is_tested():
    assert {name.partition(",")[0] for name in FILES} >= {*readable_formats(), "MPO"} - {"HEIF"}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_named(name, tmp_path):
    whole = read_image(FILES[name])
    assert whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3
    file = tmp_path / "damaged.file"
    for content in damaged(FILES[name]):
        file.write_bytes(content)
        try:
            pixels = read_image(file)
        except UnreadableImage as error:
            assert str(file) in str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


def test_an_error_of_the_decoder_of_any_type_is_named(monkeypatch):
    """Decoders raise RuntimeError (AVIF), struct.error, MemoryError and others."""
    content = encoded(photo(), "PNG")

    for error in (RuntimeError("planes"), MemoryError(), RecursionError("deep"), AssertionError(), KeyError("key")):

        def fails(self, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(ImageFile.ImageFile, "load", fails)
            with pytest.raises(UnreadableImage, match=f"cannot be decoded: {type(error).__name__}"):
                read_image(content)


def test_an_error_of_our_own_code_is_raised(monkeypatch):
    """Only the decoder is guarded."""
    for name in ("_to_rgb", "_reduce", "raw_reason"):

        def fails(*_):
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(reading, name, fails)
            with pytest.raises(RuntimeError, match="a bug"):
                read_image(encoded(photo(), "PNG"))


@pytest.fixture
def folder(tmp_path, own_cache, monkeypatch):
    """Eight good JPEGs in two classes, and an AVIF named cdn.jpg with a damaged sector."""
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(samples.photos().paths[:8]):
        target = tmp_path / "photos" / f"class {number % 2}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with Image.open(samples.photos().paths[9]) as image:
        whole = encoded(image.convert("RGB"), "AVIF", quality=95)
    (tmp_path / "photos" / "class 0" / "cdn.jpg").write_bytes(next(filter(fails_in_pillow, sectors(whole))))
    return tmp_path


def sectors(content: bytes) -> list[bytes]:
    return [content[:start] + bytes(512) + content[start + 512 :] for start in range(1024, len(content) - 512, 128)]


def fails_in_pillow(content: bytes) -> bool:
    """Whether Pillow identifies a file, but raises an error that is no OSError when it is decoded."""
    with Image.open(io.BytesIO(content)) as image:
        try:
            image.load()
        except RuntimeError:
            return True
    return False


def test_no_command_stops_at_a_damaged_file(folder, capsys):
    options = ["-x", "hsv-histogram"]
    engine = ["-e", "my.engine"]
    for command in (
        ["index", "photos", *options],
        ["audit", "photos", *options],
        ["evaluate", "photos", *options],
        ["search", "photos", "--json", *engine],
        ["add", "-e", "my.engine", "photos/class 0/cdn.jpg", str(samples.photos().paths[20])],
    ):
        assert cli.main(command) == OK, command
        out, err = capsys.readouterr()
        assert "could not be read" in err and "1 of " in err and "cdn.jpg cannot be decoded: RuntimeError" in err
        if command[0] == "search":
            assert len(json.loads(out)) == 8
        if command[0] == "index":
            assert "8 images in 2 classes" in out
    assert cli.main(["index", "photos", *options, "--strict", "-o", "strict.engine"]) == BAD_INPUT
    assert "cdn.jpg cannot be decoded" in capsys.readouterr().err
    assert cli.main(["search", "photos/class 0/cdn.jpg", *engine]) == BAD_INPUT
    assert "cdn.jpg cannot be decoded" in capsys.readouterr().err
