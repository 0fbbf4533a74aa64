"""Embedding a thousand images with the default network: bounded memory, and a kill costs only the rest."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from helpers import paths
from helpers.features import store
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.reading import read_image

pytestmark = pytest.mark.measured

SCRIPT = """
import sys
from helpers.features.registry import open_extractor
from helpers.images.folders import from_folder
extractor = open_extractor("efficientnet-lite0")
vectors = extractor.extract(from_folder(sys.argv[1]), progress=False)
with open("/proc/self/status") as status:
    peak = [line for line in status if line.startswith("VmHWM")][0]
print(vectors.shape[0], "extracted,", extractor.computed, "computed,", peak)
"""


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A thousand different images: the sample's photographs, each in several brightnesses."""
    folder = tmp_path_factory.mktemp("thousand")
    photos = [read_image(path) for path in samples.with_distractors().paths[:250]]
    for i in range(1000):
        darker = (photos[i % 250] * (1 - 0.1 * (i // 250))).astype(np.uint8)
        Image.fromarray(darker).save(folder / f"{i:04}.jpg", quality=90)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux tells the peak in /proc")
def test_a_thousand_images_killed_half_way(thousand, own_cache):
    extractor = open_extractor("efficientnet-lite0")
    command = [sys.executable, "-c", SCRIPT, str(thousand)]
    process = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stored = 0
    while stored < 300:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.5)
        with store.VectorStore(extractor.fingerprint, extractor.dim) as kept:
            stored = len(kept)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with store.VectorStore(extractor.fingerprint, extractor.dim) as kept:
        stored = len(kept)
    said = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    extracted, computed, peak = map(
        int, re.search(r"(\d+) extracted, (\d+) computed, VmHWM:\s+(\d+) kB", said).groups()
    )
    assert extracted == 1000
    assert computed == 1000 - stored
    # 0.2 GB; the pixels of all images would add 0.15 GB as bytes and 0.6 GB as floats.
    assert peak * 1024 < 0.3e9
    assert len(from_folder(thousand)) == 1000
