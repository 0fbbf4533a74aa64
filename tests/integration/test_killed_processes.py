"""Processes that are killed: nothing that was stored is lost, and what was interrupted can be resumed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import paths
from helpers.features import store
from helpers.networks import training
from helpers.search.index import load_index, open_index
from tests.unit.test_approximate_indexes import ANNOY, clustered
from tests.unit.test_training import same, same_table, train_on_images


def test_a_killed_training_resumed_in_another_process_equals_an_unbroken_one(own_cache, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "KEEP_EVERY", 0)  # the state is on disk after every epoch
    code = "from tests.unit import test_training as t; t.training.KEEP_EVERY = 0; t.train_on_images(kill=True)"
    child = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, timeout=300)
    assert child.returncode == -signal.SIGKILL, child.stderr
    resumed, ours = train_on_images(kill=False)
    assert resumed.computed == 2
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "other"))
    unbroken, theirs = train_on_images(kill=False)
    assert unbroken.computed == 5 and unbroken.best_epoch == resumed.best_epoch == 5
    assert np.allclose(unbroken.table["learning_rate"], [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025])
    assert same_table(resumed, unbroken)
    assert same(ours.get_weights(), theirs.get_weights())


def test_kill_9_loses_nothing_that_was_stored(own_cache):
    script = (
        "import numpy as np\nfrom helpers.features.store import VectorStore\n"
        "with VectorStore('killed', 2048) as kept:\n"
        "    for i in range(100000):\n"
        "        kept.put([b'%d' % i], np.full((1, 2048), i, np.float32))\n"
        "        print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=paths.ROOT)
    while int(process.stdout.readline()) < 20:
        pass
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    reported = max([20, *(int(line) for line in process.communicate()[0].split())])
    with store.VectorStore("killed", 2048) as kept:
        found = kept.get([b"%d" % i for i in range(reported + 1)])
        assert np.array_equal(found[:, 5], np.arange(reported + 1))


@pytest.mark.parametrize("spec", ["exact:cosine", "faiss:ivf", "usearch:cosine", *ANNOY[:1]])
def test_a_save_that_is_killed_leaves_the_old_file(spec, tmp_path):
    """The child stops halfway through writing, and is killed there."""
    path = open_index(spec).add(clustered(300, 8)).save(tmp_path / "gallery.index")
    before = path.read_bytes()
    code = f"""
import io, os, sys, time
from pathlib import Path
import numpy as np
from helpers.search.index import open_index
index = open_index({spec!r}).add(np.random.default_rng(0).standard_normal((2000, 8)))
real = Path.open
class Slow:
    def __init__(self, file): self.file, self.written = file, 0
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, part):
        self.written += self.file.write(part)
        self.file.flush()
        if self.written > 20_000:
            print("halfway", flush=True)
            time.sleep(60)
Path.open = lambda path, mode="r": Slow(real(path, mode)) if "x" in mode else real(path, mode)
index.save({str(path)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "halfway\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(20) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert len(load_index(path)) == 300
    # Half of the new file is left in the folder and does no harm.
    assert len([*tmp_path.iterdir()]) == 2
    assert len(load_index(open_index(spec).add(clustered(350, 8)).save(path))) == 350
