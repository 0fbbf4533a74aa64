"""Extraction by several processes: the same vectors; a killed process loses nothing that was stored."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.features import distributed
from helpers.features.color_shape import ColorHistogram, Pixels
from helpers.features.composite import Concatenated, TestTimeAugmentation
from helpers.features.registry import open_extractor
from helpers.features.store import VectorStore
from helpers.files import content_hash
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.imageset import concatenate
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, resize

HERE = Path(__file__).parent


class Logging(Pixels):
    """Pixels that log each computed image in a file per process, optionally slowly, so that a test can kill one.

    kills : content of an image that kills its process by SIGKILL, as the system does when memory is short.
    raises : class and arguments of the error that `compute` raises.
    """

    batch_size = 4

    def __init__(self, folder, pause=0.0, kills=None, raises=None):
        super().__init__()
        self.folder, self.pause, self.kills, self.raises = Path(folder), pause, kills, raises

    def compute(self, pixels):
        if self.raises is not None:
            raise self.raises[0](*self.raises[1])
        time.sleep(self.pause)
        for image in pixels:
            if image.tobytes() == self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
        with (self.folder / str(os.getpid())).open("a") as file:
            file.writelines(f"{image.tobytes().hex()}\n" for image in pixels)
        return super().compute(pixels)


class Unportable(Exception):
    """Cannot be unpickled, because its constructor takes two arguments and it keeps one."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.fixture(scope="module")
def ray_cluster():
    """One cluster for all tests, because starting Ray takes long. Its workers can import this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(paths.ROOT), str(HERE)]))
        with distributed.cluster(workers=2):
            yield


@pytest.fixture
def photos():
    return samples.photos().subset(range(40))


@pytest.fixture
def no_ray(monkeypatch):
    """Starting Ray fails."""

    def refuse(*_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(distributed, "cluster", refuse)


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def logged(folder):
    """Image → number of times that it was computed."""
    return Counter(line for file in folder.iterdir() for line in file.read_text().splitlines())


def wait_for(condition, seconds=60):
    """The condition's first true value."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "timeout"
        time.sleep(0.02)
    return found


def stored(extractor, images):
    with VectorStore(extractor.fingerprint, extractor.dim) as kept:
        return kept.known(content_hash(path) for path in images.paths)


def test_a_second_call_starts_nothing(no_ray, own_cache, photos):
    plain = ColorHistogram().extract(photos)
    assert np.array_equal(distributed.extract("hsv-histogram", photos), plain)
    with pytest.raises(AssertionError, match="Ray was started"):
        distributed.extract("hsv-histogram", samples.photos().subset(range(41)))


def test_vectors_are_those_of_the_plain_extractor(ray_cluster, own_cache, photos, monkeypatch):
    """Concatenated; OpenCV's HOG cannot be pickled, but every worker opens its own by the name.

    One worker, because each part starts its workers, which takes seconds; the next test has two.
    """
    settings = {"weights": [1, 2]}
    vectors = distributed.extract("hog+hsv-histogram", photos, workers=1, settings=settings, progress=False)
    plain = open_extractor("hog+hsv-histogram", **settings)
    assert vectors.dtype == np.float32 and np.array_equal(vectors, plain.extract(photos, cache=False))
    for part in plain.parts:
        monkeypatch.setattr(part, "compute", None)
    assert np.array_equal(plain.extract(photos), vectors), "all are in the store"


def test_nested_extractors_are_found_by_their_path(own_cache, photos):
    """Without Ray: all parts call the same function with their path from the outermost extractor."""
    few = photos.subset(range(3))
    whole = Concatenated([TestTimeAugmentation(Pixels()), ColorHistogram()])
    calls = []

    def run(part, path, files, **settings):
        calls.append((path, part))
        yield from part.iter_batches(files, **settings)

    changed = distributed._distributed(whole, run)
    assert np.array_equal(changed.extract(few), whole.extract(few, cache=False))
    assert [path for path, _ in calls] == [("parts", 0, "views", 0), ("parts", 0, "views", 1), ("parts", 1)]
    assert [part for _, part in calls] == [whole.parts[0].of, whole.parts[0].views[1], whole.parts[1]]
    assert whole.parts[0].of.computed == 6 and "iter_batches" not in vars(whole.parts[1]), "the original is unchanged"


@pytest.mark.slow
def test_only_the_batches_of_a_killed_worker_are_repeated(ray_cluster, own_cache, log, photos, monkeypatch):
    """Identical images are computed once; one of two workers is killed, and another one replaces it."""
    extractor, killed, before = Logging(log, pause=0.5), [], []
    original = VectorStore.put

    def put(self, images, vectors):
        original(self, images, vectors)
        workers = [int(file.name) for file in log.iterdir()]
        if len(workers) == 2 and not killed and len(stored(extractor, photos)) >= 12:
            before.extend(stored(extractor, photos))
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    monkeypatch.setattr(VectorStore, "put", put)
    twice = concatenate("twice", [photos, photos])
    vectors = distributed.extract(extractor, twice, workers=2, progress=False)
    assert len(killed) == 1 and len(before) < 40
    assert np.array_equal(vectors, Pixels().extract(twice, cache=False))
    times = logged(log)
    assert len(times) == 40 and not (log / str(os.getpid())).exists()
    content = {content_hash(path): pixels_of(path) for path in photos.paths}
    assert {times[content[image]] for image in before} == {1}, "stored vectors were computed again"
    # Batches that were completed but not fetched, in progress, or waiting.
    assert sum(times.values()) <= 40 + 2 * extractor.batch_size


def pixels_of(path):
    return resize(read_image(path), Pixels().size, "squash").tobytes().hex()


@pytest.mark.slow
def test_an_image_that_kills_every_worker_raises(ray_cluster, own_cache, log, photos, monkeypatch):
    monkeypatch.setattr(distributed, "RETRIES", 1)
    few = photos.subset(range(12))
    extractor = Logging(log, kills=bytes.fromhex(pixels_of(few.paths[5])))
    with pytest.raises(distributed.WorkersDied, match=r"died 2 times in one batch, (\S+) … (\S+):") as caught:
        distributed.extract(extractor, few, workers=1, progress=False)
    known = len(stored(extractor, few))
    assert known in (0, 4, 8)
    assert f"{known} of the 12 missing images have been computed" in str(caught.value)
    assert str(few.paths[4]) in str(caught.value) and str(few.paths[7]) in str(caught.value)


def test_one_warning_lists_unreadable_images(ray_cluster, own_cache, photos, tmp_path):
    # Two whole batches; the last file is missing.
    for name in ("a", "b", "c", "missing"):
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    images = concatenate("some broken", [photos.subset(range(2)), from_folder(tmp_path)])
    (tmp_path / "missing.jpg").unlink()
    extractor = Pixels()
    extractor.batch_size = 2
    with pytest.warns(UnreadableImageWarning) as caught:
        vectors = distributed.extract(extractor, images, workers=1, progress=False)
    with pytest.warns(UnreadableImageWarning) as plain:
        expected = Pixels().extract(images, cache=False)
    assert len(caught) == 1 and str(caught[0].message) == str(plain[0].message)
    assert np.array_equal(vectors, expected, equal_nan=True) and np.isnan(vectors[2:]).all()
    with pytest.raises(UnreadableImage, match=r"(a|b|c|missing)\.jpg"):
        distributed.extract(extractor, images, workers=1, strict=True, progress=False)


def test_a_file_that_only_a_worker_cannot_read(photos, tmp_path):
    """As when the images are on one computer only."""
    file = shutil.copy(photos.paths[0], tmp_path / "here.jpg")
    problem = UnreadableImage(f"{file} does not exist.")
    with pytest.raises(RuntimeError, match=r"here\.jpg does not exist.*shared file system"):
        distributed._Run._check_unreadable(file, problem)


def test_errors_of_an_extractor_are_raised_in_the_caller(ray_cluster, own_cache, log, photos):
    extractor = Logging(log, raises=(Unportable, ["one", "two"]))
    with pytest.raises(RuntimeError, match="^Unportable: one and two") as caught:
        distributed.extract(extractor, photos, workers=1, progress=False)
    assert "in compute" in caught.value.__notes__[0]


def test_an_error_keeps_its_class():
    error = distributed._portable(ArithmeticError("seven"))
    assert type(error) is ArithmeticError and error.args == ("seven",)
    assert "ArithmeticError: seven" in error.__notes__[0]


def test_an_error_without_a_text_is_named_by_its_class():
    assert distributed._first_line(ArithmeticError("one\ntwo")) == "one"
    assert distributed._first_line(ArithmeticError()) == "ArithmeticError"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can choose CPUs")
def test_a_thread_may_end_while_its_cpus_are_restored(monkeypatch):
    allowed, restored = os.sched_getaffinity(0), []

    def restore(thread, cpus):
        restored.append(cpus)
        if thread:
            raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", restore)
    with distributed._one_cpu():
        assert restored == [{min(allowed)}]
    assert restored[1:] and all(cpus == allowed for cpus in restored[1:])


DRIVER = """
import sys
from test_distributed import Logging
from helpers.features import distributed
from helpers.images import samples
distributed.extract(Logging(sys.argv[1], pause=1.5), samples.photos().subset(range(40)), workers=2)
"""


@pytest.mark.measured
def test_after_the_driver_is_killed_the_next_call_continues(ray_cluster, own_cache, log, photos, request):
    """Its workers stop at once; Ray's two agents wait for the GCS for a minute or two longer."""
    temporary = tempfile.mkdtemp(prefix="t-")
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, log],
        env=os.environ | {"TMPDIR": temporary, "PYTHONPATH": os.pathsep.join([str(paths.ROOT), str(HERE)])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    request.addfinalizer(lambda: [os.kill(pid, signal.SIGKILL) for pid in session(driver.pid)])
    extractor = Logging(log)
    wait_for(lambda: driver.poll() is not None or len(stored(extractor, photos)) >= 12, 300)
    workers = {int(file.name) for file in log.iterdir()}
    assert workers <= session(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not workers & session(driver.pid))
    kept = stored(extractor, photos)
    assert 12 <= len(kept) < 40
    before = logged(log)
    vectors = distributed.extract(extractor, photos, workers=2, progress=False)
    assert np.array_equal(vectors, Pixels().extract(photos, cache=False))
    assert sum((logged(log) - before).values()) == 40 - len(kept)


def session(leader):
    """The processes of a session."""
    found = set()
    for pid in (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(state[3]) == leader and state[0] != "Z":
            found.add(pid)
    return found


@pytest.mark.parametrize(
    "extractor, settings, error, text",
    [
        ("hog", {"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        (
            Pixels(),
            {"settings": {"size": 8}},
            TypeError,
            "settings need the name of an extractor; pixels is already open",
        ),
        ("alexnet", {}, KeyError, "no extractor is called 'alexnet'"),
        ("hog", {"settings": {"cell": 5}}, ValueError, "size must be a multiple of cell"),
    ],
)
def test_bad_input_is_refused_before_ray_starts(no_ray, own_cache, photos, extractor, settings, error, text):
    with pytest.raises(error, match=text):
        distributed.extract(extractor, photos, **settings)


def test_an_extractor_that_cannot_be_pickled(no_ray, own_cache, photos):
    extractor = Pixels()
    extractor.graph = threading.Lock()  # cannot be pickled, like a built network
    with pytest.raises(TypeError, match=r"pixels can't be sent to other processes \(cannot pickle '_thread.lock'"):
        distributed.extract(extractor, photos, progress=False)


@pytest.mark.measured
def test_resnet50(ray_cluster, own_cache, resnet50, photos):
    few = photos.subset(range(8))
    # First, so that the workers find the compiled network.
    plain = resnet50.extract(few, cache=False, progress=False)
    assert np.allclose(distributed.extract("resnet50", few, workers=2, progress=False), plain, atol=1e-5)
