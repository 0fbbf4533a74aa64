"""Two processes that write to one file at the same time lose nothing."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np

from helpers import paths
from helpers.evaluation.leaderboard import load
from helpers.features import store
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from tests.unit.test_identity import paint
from tests.unit.test_leaderboard import scores

WRITER = """
import sys
from pathlib import Path
from tests.unit import test_leaderboard as here
Path(sys.argv[2] + ".ready").touch()
while not all(Path(name + ".ready").exists() for name in ("left", "right")):
    pass
for i in range(6):
    here.write(Path(sys.argv[1]), sys.argv[2] + str(i), seed=i)
"""


def test_two_processes_lose_nothing(tmp_path):
    table = tmp_path / "leaderboard.csv"
    command = [sys.executable, "-c", WRITER, str(table)]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    writers = [
        subprocess.Popen([*command, side], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for side in ("left", "right")
    ]
    try:
        for writer in writers:
            assert writer.wait(timeout=60) == 0, writer.stderr.read()
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    board = load(table)
    assert set(board["extractor"]) == {f"{side}{i}" for side in ("left", "right") for i in range(6)}
    assert len(board) == 12 * len(scores().metrics)


def write_many(start):
    with store.VectorStore("shared", 8) as kept:
        for i in range(start, start + 40):
            kept.put([b"%d" % i], np.full((1, 8), i, np.float32))


def test_two_processes_write_at_the_same_time(own_cache):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(start,)) for start in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with store.VectorStore("shared", 8) as kept:
        assert len(kept) == 60
        assert np.array_equal(kept.get([b"%d" % i for i in range(60)])[:, 0], np.arange(60))


ADDER = """
import sys
from pathlib import Path
from helpers.images.folders import from_folder
from helpers.search.persist.live import LiveEngine
folder, side = Path(sys.argv[1]), sys.argv[2]
with LiveEngine.open(folder / "my.engine") as live:
    images = from_folder(folder / "new")
    candidates = live.engine.extract_candidates(images)
    (folder / f"{side}.ready").touch()
    while not all((folder / f"{name}.ready").exists() for name in ("left", "right")):
        pass
    # Both have found that the engine holds none of these images.
    added = live.apply(candidates)
    print(*added.ids.tolist(), *(outcome.value for outcome in added.outcomes))
"""


def test_two_processes_that_add_the_same_images_add_them_once(tmp_path, own_cache):
    """Of two equal files and a changed one, too: what becomes of an image is decided by who writes."""
    for number in range(3):
        paint(tmp_path / "old" / f"{number}.png", (number, 0, 0))
        paint(tmp_path / "new" / f"{number}.png", (0, 50 + number // 2, 0))
    folder = Engine("rgb-histogram").fit(from_folder(tmp_path / "old")).save(tmp_path / "my.engine")
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER, str(tmp_path), side], env=environment, stdout=subprocess.PIPE, text=True
        )
        for side in ("left", "right")
    ]
    said = sorted(writer.communicate(timeout=60)[0].split() for writer in writers)
    assert said == [["3", "4", "5", "new", "copy", "new"], ["3", "4", "5", "unchanged", "unchanged", "unchanged"]]
    engine = Engine.load(folder)
    assert engine.index.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert engine.table.groups.tolist() == [-1, -1, -1, 0, 0, -1]
