"""Engines in folders that cannot be written: searched, and served, with all changes that were committed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from tests.unit.test_live import MeanColor, paint

#: Permissions do not hold for root, so the readers run as another user.
READER = 65534 if os.name == "posix" and os.geteuid() == 0 else None

pytestmark = pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: permissions of folders are those of POSIX")

CHANGE = """
import os, signal, sys
import numpy as np
from helpers.search.persist.live import LiveEngine
from tests.unit.test_live import MeanColor
live = LiveEngine.open(sys.argv[1], MeanColor())
live.add_extracted(["/x.png", "/y.png"], np.float32([[0, 200, 0], [0, 250, 0]]), [None, "new"])
live.remove([0, 6])
if sys.argv[2] == "compacted":
    live.compact()
    live.add_extracted(["/z.png"], np.float32([[0, 0, 200]]), [None])
os.kill(os.getpid(), signal.SIGKILL)
"""

READ = """
import mmap, os, sys
import numpy as np
from helpers.search.backends import exact
from helpers.search.persist.live import LiveEngine
from tests.unit.test_live import MeanColor
if sys.argv[2]:
    # After the imports: Python itself may be in a folder of root.
    os.setuid(int(sys.argv[2]))
with LiveEngine.open(sys.argv[1], MeanColor()) as live:
    print(live.engine.index.ids.tolist(), flush=True)
    for line in sys.stdin:
        print(live.refresh(), live.engine.index.ids.tolist(), flush=True)
    try:
        live.remove([1])
    except OSError as error:
        print(error)
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as temporary:
        # Other users may not enter the folders of pytest.
        place = Path(temporary)
        place.chmod(0o755)
        (place / "temporary").mkdir()
        (place / "temporary").chmod(0o777)
        for red in range(0, 250, 50):
            paint(place / "images" / f"{red:03}.png", (red, 0, 0))
        yield Engine(MeanColor(), "exact:euclidean").fit(from_folder(place / "images")).save(place / "my.engine")
        (place / "my.engine").chmod(0o755)


def reader(folder):
    # The private copies of the reader are in a folder of this test.
    return subprocess.Popen(
        [sys.executable, "-c", READ, str(folder), str(READER or "")], cwd=paths.ROOT, text=True,
        env=os.environ | {"TMPDIR": str(folder.parent / "temporary")}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def names(folder):
    return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())


@pytest.mark.parametrize("log", ["log and shared memory", "log only", "written back"])
@pytest.mark.parametrize("what", ["changed", "compacted"])
def test_every_committed_change_is_found(folder, what, log):
    """A writer was killed, so SQLite's log still holds its changes; the copy of a folder may lack the -shm file."""
    writer = subprocess.run([sys.executable, "-c", CHANGE, str(folder), what], cwd=paths.ROOT)
    assert writer.returncode == -signal.SIGKILL and (folder / "engine.sqlite-wal").stat().st_size
    if log == "log only":
        (folder / "engine.sqlite-shm").unlink()
    if log == "written back":
        with LiveEngine.open(folder, MeanColor()) as live:
            live.add_extracted(["/w.png"], np.float32([[9, 9, 9]]), [None])
    folder.chmod(0o555)
    before = names(folder)
    expected = [1, 2, 3, 4, 5] + [7] * (what == "compacted") + [7 + (what == "compacted")] * (log == "written back")
    with reader(folder) as process:
        out, err = process.communicate("look\n", timeout=60)
    assert out.splitlines()[:2] == [str(expected), f"False {expected}"], err
    assert "readonly database" in out and process.returncode == 0
    assert names(folder) == before
    assert not list((folder.parent / "temporary").iterdir()), "private copies are deleted"


def test_the_last_writer_leaves_no_log(folder):
    """Although a process that only reads has the engine open, and then ends last."""
    with LiveEngine.open(folder, MeanColor()) as watching:
        with LiveEngine.open(folder, MeanColor()) as live:
            live.add_extracted(["/x.png"], np.float32([[0, 200, 0]]), [None])
            assert (folder / "engine.sqlite-wal").stat().st_size
        assert not (folder / "engine.sqlite-wal").stat().st_size
        copy = shutil.copytree(folder, folder.parent / "copy", ignore=lambda *_: ["engine.sqlite-wal"])
        assert watching.refresh() and len(watching) == 6
    assert len(Engine.load(copy, MeanColor())) == 6


def test_a_reader_without_permission_to_write_sees_the_changes_of_a_writer(folder):
    with LiveEngine.open(folder, MeanColor()) as live:
        live.add_extracted(["/x.png"], np.float32([[0, 200, 0]]), [None])
        if READER is None:
            pytest.skip("NOT TESTED: needs a second user")
        with reader(folder) as process:
            assert process.stdout.readline() == "[0, 1, 2, 3, 4, 5]\n"
            live.remove([0])
            process.stdin.write("look\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True [1, 2, 3, 4, 5]\n"
            process.communicate(timeout=60)
