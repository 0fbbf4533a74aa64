"""Photographs of 108 and 200 megapixels: read at a reduced size, with bounded memory, also by the service."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from helpers import paths
from helpers.service.content import inspect
from helpers.service.errors import ApiError
from helpers.service.uploads import decode

#: Sizes of the sensors of phones.
SIZES = {108: (12000, 9000), 200: (16320, 12240)}
LIMIT = 50_000_000

READ = """
import resource, sys
from helpers.images.reading import read_image
pixels = read_image(sys.argv[1])
print(*pixels.shape, *pixels[9, 9], *pixels[-9, -9], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture(scope="module", params=SIZES)
def large(request, tmp_path_factory):
    """A JPEG whose upper half is black and whose lower half is white, with half a turn in its EXIF block.

    One second each, and 200 MB.
    """
    width, height = SIZES[request.param]
    image = Image.new("L", (width, height))
    image.paste(255, (0, height // 2, width, height))
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path_factory.mktemp("large") / f"{request.param} megapixels.jpg"
    image.save(path, exif=exif)
    return path, width, height


@pytest.mark.skipif(sys.platform == "win32", reason="the module resource exists on Unix only")
def test_a_large_photograph_is_read_in_bounded_memory(large):
    path, width, height = large
    done = subprocess.run(
        [sys.executable, "-c", READ, path],
        cwd=paths.ROOT,
        env=paths.child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *found, peak = map(int, done.stdout.split())
    assert found == [height // 2, width // 2, 3, 255, 255, 255, 0, 0, 0], "half of each side, upright"
    # 150 MB of pixels, twice that while they are copied, and the library itself. Undivided, 200 megapixels are 600 MB.
    unit = 1024 if sys.platform == "darwin" else 1
    assert peak / unit < 700


def test_the_service_refuses_a_progressive_jpeg_above_its_limit():
    """Its decoder keeps the coefficients of the whole image, however much it reduces the pixels."""
    for progressive, kind, limit in ((True, "a progressive JPEG", "1,000"), (False, "JPEG", "4,000")):
        written = io.BytesIO()
        Image.new("RGB", (80, 60)).save(written, "JPEG", progressive=progressive)
        with pytest.raises(ApiError, match=f"80 × 60 pixels. The limit is {limit} pixels for {kind}"):
            inspect(written.getvalue(), 1000)
        assert inspect(written.getvalue(), 4800).scale == 1
    assert inspect(written.getvalue(), 1200).pixels == 1200


def test_the_service_reads_or_names_the_limit(large):
    path, width, height = large
    content = path.read_bytes()
    info = inspect(content, LIMIT)
    assert (info.width, info.height, info.scale, info.pixels) == (width, height, 2, width * height // 4)
    pixels = decode(content, info)
    assert pixels.shape == (height // 2, width // 2, 3) and pixels[9, 9, 0] == 255
    with pytest.raises(ApiError, match=f"{width} × {height} pixels. The limit is 80,000,000 pixels for JPEG"):
        inspect(content, 20_000_000)
