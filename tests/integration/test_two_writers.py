"""Two processes that write to one file at the same time lose nothing."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np

from helpers import paths
from helpers.evaluation.leaderboard import load
from helpers.features import store
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
