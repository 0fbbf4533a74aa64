"""Photographs of 108 and 200 megapixels: read at a reduced size, with bounded memory, also by the service."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from helpers import paths
from helpers.service.content import UploadedImage
from helpers.service.errors import ApiError

#: Sizes of the sensors of phones.
SIZES = {108: (12000, 9000), 200: (16320, 12240)}
LIMIT = 50_000_000

READ = """
import re, sys
from pathlib import Path
from helpers.images.reading import read_image
pixels = read_image(sys.argv[1])
# Not ru_maxrss, which includes the memory of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(*pixels.shape, *pixels[9, 9], *pixels[-9, -9], int(peak[1]) // 1024)
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


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the peak of memory is read from /proc")
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
    assert peak < 700


def test_the_service_refuses_a_progressive_jpeg_above_its_limit():
    """Its decoder keeps the coefficients of the whole image, however much it reduces the pixels."""
    for progressive, kind, limit in ((True, "a JPEG with several scans", "1,000"), (False, "JPEG", "4,000")):
        written = io.BytesIO()
        Image.new("RGB", (80, 60)).save(written, "JPEG", progressive=progressive)
        with pytest.raises(ApiError, match=f"80 × 60 pixels. The limit is {limit} pixels for {kind}. Send"):
            UploadedImage(written.getvalue()).inspect(1000)
        assert UploadedImage(written.getvalue()).inspect(4800).scale == 1
    assert UploadedImage(written.getvalue()).inspect(1200).pixels == 1200


def test_the_service_reads_or_names_the_limit(large):
    path, width, height = large
    content = path.read_bytes()
    info = UploadedImage(content).inspect(LIMIT)
    assert (info.width, info.height, info.scale, info.pixels) == (width, height, 2, width * height // 4)
    pixels = UploadedImage(content).decode(info)
    assert pixels.shape == (height // 2, width // 2, 3) and pixels[9, 9, 0] == 255
    with pytest.raises(ApiError, match=f"{width} × {height} pixels. The limit is 80,000,000 pixels for JPEG"):
        UploadedImage(content).inspect(20_000_000)
