"""A saved engine that several processes search and change at once, and that are killed while they do."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import engine
from helpers import paths
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.snapshot import is_engine, manifest_of
from tests.unit.test_live import MeanColor, nearest, paint


@pytest.fixture(params=["exact:euclidean", "faiss:hnsw?metric=euclidean"])
def folder(request, tmp_path):
    for red in range(0, 250, 50):
        paint(tmp_path / "images" / "old" / f"{red:03}.png", (red, 0, 0))
    return Engine(MeanColor(), request.param).fit(from_folder(tmp_path / "images")).save(tmp_path / "my.engine")


ADDER = """
import sys
import numpy as np
from helpers.search.persist import compaction
from helpers.search.persist.live import LiveEngine
from tests.unit.test_live import MeanColor

compaction.LEAST_CHANGES = 10
times = int(sys.argv[2])
with LiveEngine.open(sys.argv[1], MeanColor()) as live:
    while times:
        (number,) = live.add_extracted(["/x.png"], np.float32([[250, 250, len(live)]]), [None]).ids.tolist()
        print(number, flush=True)
        times -= 1
"""


def start(folder, times):
    command = [sys.executable, "-c", ADDER, str(folder), str(times)]
    return subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_loses_nothing_that_it_acknowledged(folder):
    processes = [start(folder, -1) for _ in range(2)]
    acknowledged = []
    for process in processes:
        acknowledged += [int(process.stdout.readline()) for _ in range(3)]
    time.sleep(0.2)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        # The last line may be cut.
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
        process.wait()
    with LiveEngine.open(folder, MeanColor()) as live:
        assert len(acknowledged) == len(set(acknowledged)) >= 6
        assert set(acknowledged) <= set(live.engine.index.ids.tolist())
        live.compact()
        assert set(acknowledged) <= set(live.engine.index.ids.tolist())


def test_two_processes_add_and_compact_while_a_third_searches(folder):
    processes = [start(folder, 40) for _ in range(2)]
    sizes, files = [], set()
    with LiveEngine.open(folder, MeanColor()) as live:
        while any(process.poll() is None for process in processes):
            live.refresh()
            engine = live.engine
            # Each state is consistent: as many ids as the table has rows, and every image finds itself.
            assert engine.index.ids.tolist() == list(range(len(engine.table)))
            assert nearest(engine, 0, k=2)[0] == 0
            sizes.append(len(engine))
            files.add(manifest_of(folder).index_file)
        outputs = [process.communicate()[0].split() for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert sorted(map(int, outputs[0] + outputs[1])) == list(range(5, 85))
        live.refresh()
        assert len(live) == 85 and sizes == sorted(sizes)
    assert len(files) > 1 and len(list(folder.glob("vectors-*.index"))) == 1
    assert Engine.load(folder, MeanColor()).index.ids.tolist() == list(range(85))


@pytest.mark.slow
def test_kills_of_writers_that_compact_lose_nothing(tmp_path):
    """Twelve kills at random moments, each with a process that starts anew; takes about 20 s."""
    folder = engine.make_engine(tmp_path / "engine", 50, 8, "exact:euclidean")
    outcome = engine.kill_writers(folder, kills=12, seed=1, dim=8)
    assert outcome.problems == []
    assert outcome.added > 50 and outcome.removed > 5 and outcome.compacted > 20
    assert len(list(folder.glob("vectors-*.index"))) == 1


SAVER = """
import sys
from pathlib import Path
from helpers.search.engine import Engine
from helpers.search.persist import saving
from tests.unit.test_live import MeanColor

engine = Engine.load(sys.argv[1], MeanColor())
engine._saved = None
real, step = saving.snapshot.{function}, iter(range(10))
def stop(*arguments):
    print("here", flush=True)
    sys.stdin.readline()
    return real(*arguments)
saving.snapshot.{function} = stop
engine.save(sys.argv[2])
"""


@pytest.mark.parametrize("function", ["write_index", "replace_snapshot", "delete_leftovers"])
@pytest.mark.parametrize("over", [False, True])
def test_a_save_that_is_killed_leaves_the_old_engine_or_the_new(folder, tmp_path, function, over):
    """The process stops before a step, and is killed there."""
    target = tmp_path / "target.index"
    if over:
        Engine.load(folder, MeanColor()).save(target)
        with LiveEngine.open(target, MeanColor()) as live:
            live.add_extracted(["/x.png"], np.float32([[1, 2, 3]]), ["new"])
    before = manifest_of(target) if over else None
    command = [sys.executable, "-c", SAVER.format(function=function), str(folder), str(target)]
    with subprocess.Popen(command, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    if function == "delete_leftovers":
        assert manifest_of(target) != before and len(Engine.load(target, MeanColor())) == 5
    elif over:
        assert manifest_of(target) == before and len(Engine.load(target, MeanColor())) == 6
    else:
        assert not is_engine(target)
    # The next save works, and takes away what was left.
    saved = Engine.load(folder, MeanColor()).save(target)
    assert sorted(path.name for path in saved.iterdir()) == [".lock", "engine.sqlite", manifest_of(saved).index_file]
    assert len(Engine.load(saved, MeanColor())) == 5
