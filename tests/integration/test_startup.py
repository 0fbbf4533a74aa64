"""The packages that a command imports, and limits on the threads of libraries that are imported late."""

import json
import os
import subprocess
import sys

from helpers import paths
from helpers.images import samples
from helpers.search.engine import Engine

#: Print, as JSON, the large packages that are imported after each step.
IMPORTED = """
import json, sys
from contextlib import redirect_stdout

LARGE = {
    "sklearn", "scipy", "pandas", "tensorflow", "keras", "ray", "matplotlib", "openvino", "cv2", "faiss", "joblib",
    "requests",
}
steps = {}

def note(step):
    steps[step] = sorted(LARGE & sys.modules.keys())

from helpers.cli import main as cli
cli.parser()
note("parser")
engine, image = sys.argv[1:]
with redirect_stdout(sys.stderr):
    for line in (["extractors"], ["backends"], ["encoders"], ["remove", "0", "-e", engine], ["compact", "-e", engine],
                 ["info", "-e", engine], ["list", "-e", engine], ["completion", "bash"],
                 ["search", image, "-e", engine]):
        assert cli.main(line) == 0, line
        note(line[0])
print(json.dumps(steps))
"""

LIMITED = """
import json
from threadpoolctl import threadpool_info
from helpers.features.vocabulary import one_thread

def threads():
    return {library["user_api"]: library["num_threads"] for library in threadpool_info()}

with one_thread():
    first = threads()
import sklearn.cluster
between = threads()
with one_thread():
    second = threads()
print(json.dumps([first, between, second]))
"""


def run_in_new_process(code, *arguments, **variables):
    """Run code in a new process and return what it prints, from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(paths.ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_commands_import_only_what_they_use(own_cache, tmp_path):
    photos = samples.photos().subset(range(0, 60, 10))
    folder = Engine("hsv-histogram").fit(photos).save(tmp_path / "my.engine")
    # The features of this image are not in the cache, so the search extracts them.
    steps = run_in_new_process(IMPORTED, folder, samples.photos().paths[61], LOOKALIKE_CACHE=str(own_cache))
    assert steps.pop("search") == ["cv2"], "OpenCV computes the color histogram"
    assert steps == {
        step: []
        for step in ("parser", "extractors", "backends", "encoders", "remove", "compact", "info", "list", "completion")
    }
    assert len(Engine.load(folder)) == 5


def test_one_thread_limits_libraries_that_are_imported_later():
    first, between, second = run_in_new_process(LIMITED, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")
    assert set(first.values()) == {1}
    assert between["openmp"] == 2, "scikit-learn imports OpenMP"
    assert set(second.values()) == {1} and "openmp" in second
