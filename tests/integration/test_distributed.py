"""Describing by several processes: the same vectors, nothing lost and nothing computed twice whoever is killed."""

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
from helpers.images.imageset import concatenate, from_folder
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, resize

HERE = Path(__file__).parent


class Logging(Pixels):
    """Pixels that write into a folder which images they compute, by which process; slowly, so that one can kill it.

    kills : an image's content that kills whoever computes it, with SIGKILL as the system does when memory is short.
    raises : the class and the arguments of what computing raises.
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
    """Can't be unpickled: it is made from two things and remembers one."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.fixture(scope="module")
def ray_cluster():
    """One for all tests of this file: starting Ray takes longer than most of them. Workers find this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(paths.ROOT), str(HERE)]))
        with distributed.cluster(workers=2):
            yield


@pytest.fixture
def photos():
    return samples.photos().subset(range(40))


@pytest.fixture
def no_ray(monkeypatch):
    """Whoever needs Ray fails."""

    def refuse(*_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(distributed, "cluster", refuse)


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def logged(folder):
    """How often each image was computed."""
    return Counter(line for file in folder.iterdir() for line in file.read_text().splitlines())


def wait_for(condition, seconds=60):
    """What the condition gives once it is true of something."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
    return found


def stored(made, images):
    with VectorStore(made.fingerprint, made.dim) as kept:
        return kept.known(content_hash(path) for path in images.paths)


def test_a_second_call_starts_nothing(no_ray, own_cache, photos):
    plain = ColorHistogram().extract(photos)
    assert np.array_equal(distributed.extract("hsv-histogram", photos), plain)
    with pytest.raises(AssertionError, match="Ray was started"):
        distributed.extract("hsv-histogram", samples.photos().subset(range(41)))


def test_vectors_are_those_of_the_plain_extractor(ray_cluster, own_cache, photos, monkeypatch):
    """Of two extractors as one; OpenCV's HOG can't be pickled, but every worker opens its own by the name."""
    how = {"weights": [1, 2]}
    vectors = distributed.extract("hog+hsv-histogram", photos, workers=2, settings=how, progress=False)
    plain = open_extractor("hog+hsv-histogram", **how)
    assert vectors.dtype == np.float32 and np.array_equal(vectors, plain.extract(photos, cache=False))
    for part in plain.parts:
        monkeypatch.setattr(part, "compute", None)
    assert np.array_equal(plain.extract(photos), vectors), "the plain extractor finds all in the store"


def test_every_extractor_inside_another_is_found_by_its_way(own_cache, photos):
    """Without Ray: each part computes by the same function, which is told how to get from the whole to the part."""
    few = photos.subset(range(3))
    whole = Concatenated([TestTimeAugmentation(Pixels()), ColorHistogram()])
    asked = []

    def run(part, way, files, **how):
        asked.append((way, part))
        yield from part.iter_batches(files, **how)

    spread = distributed._spread(whole, run)
    assert np.array_equal(spread.extract(few), whole.extract(few, cache=False))
    assert [way for way, _ in asked] == [("parts", 0, "of"), ("parts", 0, "views", 1), ("parts", 1)]
    assert [part for _, part in asked] == [whole.parts[0].of, whole.parts[0].views[1], whole.parts[1]]
    assert whole.parts[0].of.computed == 6 and "iter_batches" not in vars(whole.parts[1]), (
        "what was given stays as it was"
    )


@pytest.mark.slow
def test_a_killed_worker_costs_only_the_batches_it_had(ray_cluster, own_cache, log, photos, monkeypatch):
    """Both workers work and copies are computed once; one is killed in the middle, and its successor goes on."""
    made, killed, before = Logging(log, pause=0.5), [], []
    original = VectorStore.put

    def put(self, images, vectors):
        original(self, images, vectors)
        workers = [int(file.name) for file in log.iterdir()]
        if len(workers) == 2 and not killed and len(stored(made, photos)) >= 12:
            before.extend(stored(made, photos))
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    monkeypatch.setattr(VectorStore, "put", put)
    twice = concatenate("twice", [photos, photos])
    vectors = distributed.extract(made, twice, workers=2, progress=False)
    assert len(killed) == 1 and len(before) < 40
    assert np.array_equal(vectors, Pixels().extract(twice, cache=False))
    times = logged(log)
    assert len(times) == 40 and not (log / str(os.getpid())).exists()
    content = {content_hash(path): pixels_of(path) for path in photos.paths}
    assert {times[content[image]] for image in before} == {1}, "what was stored was computed again"
    # It had batches that were finished but not yet fetched, one that it was at, and some that waited.
    assert sum(times.values()) <= 40 + 2 * made.batch_size


def pixels_of(path):
    return resize(read_image(path), Pixels().size, "squash").tobytes().hex()


@pytest.mark.slow
def test_an_image_that_kills_every_worker_ends_in_an_error(ray_cluster, own_cache, log, photos, monkeypatch):
    monkeypatch.setattr(distributed, "RETRIES", 1)
    few = photos.subset(range(12))
    made = Logging(log, kills=bytes.fromhex(pixels_of(few.paths[5])))
    with pytest.raises(distributed.WorkersDied, match=r"died 2 times over one batch, (\S+) … (\S+):") as caught:
        distributed.extract(made, few, workers=1, progress=False)
    known = len(stored(made, few))
    assert known in (0, 4, 8)
    assert f"{known} of the 12 images that were missing have been computed" in str(caught.value)
    assert str(few.paths[4]) in str(caught.value) and str(few.paths[7]) in str(caught.value)


def test_unreadable_images_are_counted_and_named_once(ray_cluster, own_cache, photos, tmp_path):
    # Two whole batches of them; the last one is not even there.
    for name in ("a", "b", "c", "gone"):
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    images = concatenate("some broken", [photos.subset(range(2)), from_folder(tmp_path)])
    (tmp_path / "gone.jpg").unlink()
    made = Pixels()
    made.batch_size = 2
    with pytest.warns(UnreadableImageWarning) as caught:
        vectors = distributed.extract(made, images, workers=1, progress=False)
    with pytest.warns(UnreadableImageWarning) as plain:
        expected = Pixels().extract(images, cache=False)
    assert len(caught) == 1 and str(caught[0].message) == str(plain[0].message)
    assert np.array_equal(vectors, expected, equal_nan=True) and np.isnan(vectors[2:]).all()
    with pytest.raises(UnreadableImage, match=r"(a|b|c|gone)\.jpg"):
        distributed.extract(made, images, workers=1, strict=True, progress=False)


def test_a_file_that_only_a_worker_cannot_read_is_no_unreadable_image(photos, tmp_path):
    """As when the images lie on one computer only."""
    file = shutil.copy(photos.paths[0], tmp_path / "here.jpg")
    problem = UnreadableImage(f"{file} does not exist.")
    with pytest.raises(RuntimeError, match=r"here\.jpg does not exist.*shared file system"):
        distributed._Run._check_missing(file, problem)


def test_what_an_extractor_raises_reaches_the_caller(ray_cluster, own_cache, log, photos):
    made = Logging(log, raises=(Unportable, ["one", "two"]))
    with pytest.raises(RuntimeError, match="^Unportable: one and two") as caught:
        distributed.extract(made, photos, workers=1, progress=False)
    assert "in compute" in caught.value.__notes__[0]


def test_an_error_keeps_its_kind():
    error = distributed._portable(ArithmeticError("seven"))
    assert type(error) is ArithmeticError and error.args == ("seven",)
    assert "ArithmeticError: seven" in error.__notes__[0]


DRIVER = """
import sys
from test_distributed import Logging
from helpers.features import distributed
from helpers.images import samples
distributed.extract(Logging(sys.argv[1], pause=1.5), samples.photos().subset(range(40)), workers=2)
"""


@pytest.mark.slow
def test_when_the_driver_is_killed_the_next_call_computes_the_rest(ray_cluster, own_cache, log, photos, request):
    """Its workers go with it at once. Ray's two agents look for a GCS that is gone for a minute or two longer."""
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
    made = Logging(log)
    wait_for(lambda: driver.poll() is not None or len(stored(made, photos)) >= 12, 120)
    workers = {int(file.name) for file in log.iterdir()}
    assert workers <= session(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not workers & session(driver.pid))
    kept = stored(made, photos)
    assert 12 <= len(kept) < 40
    before = logged(log)
    vectors = distributed.extract(made, photos, workers=2, progress=False)
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
    "made, how, error, text",
    [
        ("hog", {"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        (Pixels(), {"settings": {"size": 8}}, TypeError, "settings go with a name; pixels is open already"),
        ("alexnet", {}, KeyError, "no extractor is called 'alexnet'"),
        ("hog", {"settings": {"cell": 5}}, ValueError, "cells of 5 pixels"),
    ],
)
def test_bad_input_is_told_before_ray_is_started(no_ray, own_cache, photos, made, how, error, text):
    with pytest.raises(error, match=text):
        distributed.extract(made, photos, **how)


def test_an_extractor_that_cannot_be_sent_is_named(no_ray, own_cache, photos):
    made = Pixels()
    made.graph = threading.Lock()  # as little to be pickled as a network that is built
    with pytest.raises(TypeError, match=r"pixels can't be sent to other processes \(cannot pickle '_thread.lock'"):
        distributed.extract(made, photos, progress=False)


@pytest.mark.slow
def test_resnet50(ray_cluster, own_cache, resnet50, photos):
    few = photos.subset(range(8))
    # First, so that the workers find the network compiled.
    plain = resnet50.extract(few, cache=False, progress=False)
    assert np.allclose(distributed.extract("resnet50", few, workers=2, progress=False), plain, atol=1e-5)
