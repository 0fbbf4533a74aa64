"""Milvus: the contract of all indexes on Milvus Lite itself, its files, and the ways a server can fail.

A server is Milvus Lite behind its own gRPC service on loopback, which the tests make busy, slow or forgetful; it is
no cluster.
"""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent import futures
from contextlib import closing

import grpc
import numpy as np
import pytest
from milvus_lite import MilvusLite
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from PIL import Image
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from helpers import paths
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.loopback import reserved_port
from helpers.search.backends import remote
from helpers.search.backends.milvus_backend import KINDS, MilvusIndex
from helpers.search.backends.remote import PartlyIndexed, Payload, RetryPolicy, ServerRefused, ServerUnavailable
from helpers.search.engine import Engine
from helpers.search.index import IndexFileError, load_index, open_index
from helpers.search.persist import snapshot
from helpers.search.persist.live import LiveEngine
from helpers.search.ranking import PAD


def random_vectors(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "RetryPolicy", lambda: RetryPolicy(attempts=3, first=0.01, longest=0.02))


@pytest.fixture
def opened(tmp_path):
    """``opened(query, name)``: an index in a file of its own."""
    made = []

    def open_file(query="", name="gallery"):
        made.append(open_index(f"milvus:{tmp_path / name}.db{query}"))
        return made[-1]

    yield open_file
    for index in made:
        index.close()


def start(code, path):
    """A new process with the helpers."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code, path], text=True, cwd=paths.ROOT, **pipes)


# ---- names -------------------------------------------------------------------------------------------------------


def test_a_spec_opens_an_index_that_knows_its_spec(opened, tmp_path, monkeypatch):
    query = "?ef=80&ef_construction=100&index=hnsw&m=8&metric=euclidean&timeout=20.0"
    index = opened(query, "new folder/a")
    assert index.spec == f"milvus:{tmp_path}/new folder/a.db{query}"
    assert (type(index), index.metric, len(index), index.dim) == (MilvusIndex, "euclidean", 0, None)
    monkeypatch.chdir(tmp_path)
    with closing(open_index("milvus:cache/b.db")) as relative:
        assert relative.spec == "milvus:cache/b.db"
        assert (tmp_path / "cache/b.db").is_dir()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("milvus:", "write milvus:folder/name.db or milvus://host:19530/name"),
        ("milvus:gallery.index", "write milvus:folder/name.db"),
        ("milvus://host:x/name", "write milvus://host:19530/name"),
        ("milvus://host:1/a-b", "letters, digits and _"),
        ("milvus://me:hush@host/x", "sign_in"),
        ("milvus:a.db?metric=manhattan", "cosine, euclidean"),
        ("milvus:a.db?index=annoy", "flat, hnsw, ivf, ivf_sq8"),
        ("milvus:a.db?nlist=4", "nlist is not an option of index=flat"),
        ("milvus:a.db?index=ivf&nlist=0", "nlist must be a whole number of at least 1"),
        ("milvus:a.db?shards=2", "for a server"),
        ("milvus:a.db?timeout=-1", "timeout must be"),
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_made(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_index(spec)
    assert not list(tmp_path.iterdir())


# ---- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "ids", "scores"),
    [
        # From (1, 0): the gallery is (2, 0), (0, 3), (3, 4), (-1, 0), (0, 0).
        ("cosine", [0, 2, 1, 4, 3], [1, 0.6, 0, 0, -1]),
        ("euclidean", [0, 4, 3, 1, 2], [-1, -1, -2, -(10**0.5), -(20**0.5)]),
    ],
)
def test_known_results(opened, metric, ids, scores):
    index = opened(f"?metric={metric}").add([[2, 0], [0, 3], [3, 4], [-1, 0], [0, 0]])
    ranking = index.search([[1, 0]], 7)
    assert ranking.ids.tolist() == [[*ids, PAD, PAD]]
    np.testing.assert_allclose(ranking.scores[0, :5], scores, atol=1e-6)
    zero = index.search([[0, 0]], 1)
    assert (zero.ids.tolist(), zero.scores.tolist()) == ([[0 if metric == "cosine" else 4]], [[0]])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("query", "lowest"),
    [
        ("index=flat", 1),
        ("index=hnsw", 0.99),
        ("index=ivf&nlist=4&nprobe=4", 1),
        ("index=ivf_sq8&nlist=4&nprobe=4", 0.9),
    ],
)
def test_each_kind_finds_what_the_exact_index_finds(opened, metric, query, lowest, monkeypatch):
    monkeypatch.setattr(MilvusIndex, "flush_from", 100)
    vectors, queries, ids = random_vectors(400, 16), random_vectors(25, 16, 1), np.arange(400) * 3 + 2**53
    index = opened(f"?{query}&metric={metric}").add(vectors[:300], ids[:300]).add(vectors[300:], ids[300:])
    exact = open_index(f"exact:{metric}").add(vectors, ids)
    for _ in range(2):
        found, truth = index.search(queries, 10), exact.search(queries, 10)
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found.ids, truth.ids, strict=True)])
        assert recall >= lowest
        np.testing.assert_allclose(found.scores, truth.scores, atol=1e-5 if "sq8" not in query else 0.05)
        for each in (index, exact):
            each.remove(ids[::2])
        ids, vectors = ids[1::2], vectors[1::2]


@pytest.mark.parametrize(
    ("query", "lowest"), [("index=flat", 1), ("index=hnsw", 0.95), ("index=ivf&nlist=4&nprobe=4", 1)]
)
@pytest.mark.parametrize("listed", [1000, 5])
def test_filters(opened, query, lowest, listed, monkeypatch):
    """With 5, long lists are sent only where some more results do not do."""
    monkeypatch.setattr(MilvusIndex, "flush_from", 100)
    monkeypatch.setattr(remote, "_LISTED", listed)
    vectors, queries, ids = random_vectors(600, 8), random_vectors(25, 8, 1), np.arange(600) * 3 + 2**53
    index, exact = opened(f"?{query}").add(vectors, ids), open_index("exact:cosine").add(vectors, ids)
    nearest = exact.search(queries[:1], 300).ids[0]
    for filters in (
        {"excluded": ids[:60]}, {"excluded": ids[20:]}, {"excluded": nearest}, {"allowed": ids[::7]},
        {"allowed": ids[:400], "excluded": ids[200:300]}, {"allowed": [*ids[:4], 1], "excluded": ids[2:100]},
    ):  # fmt: skip
        found, truth = index.search(queries, 10, **filters), exact.search(queries, 10, **filters)
        assert np.array_equal(found.ids == PAD, truth.ids == PAD)
        assert (
            np.mean([len(np.intersect1d(a, b)) / len(np.unique(b)) for a, b in zip(found.ids, truth.ids, strict=True)])
            >= lowest
        )
        np.testing.assert_allclose(found.scores[:, 0], truth.scores[:, 0], atol=1e-5 if lowest == 1 else 0.1)
    assert (index.search(queries, 10, excluded=ids).ids == PAD).all()


def once_built(search, approximate):
    """What a search finds; Milvus searches exactly until its lists are built, which it does in its own time."""
    end = time.monotonic() + 30
    while not approximate(found := search()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_few_cells_looked_into_may_find_fewer(opened, monkeypatch):
    monkeypatch.setattr(MilvusIndex, "flush_from", 100)
    index = opened("?index=ivf&nlist=8&nprobe=1").add(random_vectors(400, 4))
    ranking = once_built(lambda: index.search(random_vectors(5, 4, 1), 400), lambda found: found.ids[0, -1] == PAD)
    assert (ranking.ids[:, 0] != PAD).all() and (ranking.ids[:, -1] == PAD).all()


def test_adding_and_removing(opened):
    index = opened()
    with pytest.raises(ValueError, match="the index is empty"):
        index.search([[1, 2, 3]], 1)
    index.add(np.empty((0, 3)))
    assert (len(index), index.dim) == (0, 3)
    index.add(random_vectors(1, 3)).add(random_vectors(2, 3, 1), [2**63 - 2, 7]).remove([0])
    assert index.ids.tolist() == [7, 2**63 - 2]
    assert index.search(random_vectors(2, 3, 1), 1).ids.tolist() == [[2**63 - 2], [7]]
    assert index.search(np.empty((0, 3)), 2).ids.shape == (0, 2)
    for ids, message in (([7, 8], "id 7 already in the index"), ([8, 8], "unique: id 8"), ([-1, 8], "negative")):
        with pytest.raises(ValueError, match=message):
            index.add(random_vectors(2, 3), ids)
    with pytest.raises(ValueError, match="vectors of 4 numbers, but the index holds 3"):
        index.add(random_vectors(1, 4))
    with pytest.raises(KeyError, match="id 8"):
        index.remove([7, 8])
    assert len(index) == 2 and index.search(random_vectors(1, 3), 5).ids[0, 2] == PAD
    index.remove(index.ids)
    assert (len(index), index.dim) == (0, 3)
    with pytest.raises(ValueError, match="the index is empty"):
        index.search([[1, 2, 3]], 1)
    assert index.add(random_vectors(2, 3), [7, 1]).refresh().ids.tolist() == [1, 7]
    index.clear().add(random_vectors(2, 9))
    assert (index.ids.tolist(), index.dim, index.nbytes) == ([0, 1], 9, 2 * 9 * 4 + 16)


def test_equal_vectors_stand_by_id(opened):
    index = opened().add(np.ones((50, 4)), np.random.default_rng(0).permutation(50))
    ranking = index.search(np.ones((3, 4)), 50)
    assert (ranking.ids == np.arange(50)).all() and np.allclose(ranking.scores, 1)


def test_payloads_are_kept_beside_the_vectors(opened):
    payload = [Payload(f"{i}.png", f"Grüße/'{i}'", i - 1) for i in range(1200)]
    index = opened().add(random_vectors(1200, 2), np.arange(1200)[::-1], payload)
    index.add(random_vectors(1, 2))
    assert index.payload(index.ids) == [*payload[::-1], Payload()]
    assert index.payload([]) == []
    np.testing.assert_allclose(index.vectors([1199, 3]), random_vectors(1200, 2)[[0, 1196]], atol=1e-6)
    with pytest.raises(KeyError, match="5000"):
        index.vectors([3, 5000])
    with pytest.raises(KeyError, match="5000"):
        index.payload([3, 5000])
    with pytest.raises(ValueError, match="one for each of 1 vectors, got 2"):
        index.add(random_vectors(1, 2), payload=payload[:2])
    assert len(index) == 1201


def test_parts_pages_and_batches_change_nothing(opened, monkeypatch):
    vectors = random_vectors(130, 4)
    monkeypatch.setattr(MilvusIndex, "page", 40)
    monkeypatch.setattr("helpers.search.backends.milvus_backend._QUERIES", 7)
    index = opened()
    index.chunk_rows = 33
    index.add(vectors, np.arange(130)[::-1])
    assert index.refresh().ids.tolist() == list(range(130))
    assert index.search(vectors, 1).ids[:, 0].tolist() == list(range(130))[::-1]


def test_more_results_than_milvus_gives_are_refused(opened):
    index = opened().add(random_vectors(1, 2))
    index._ids = np.arange(20_000)
    with pytest.raises(ValueError, match="at most 16384"):
        index.search([[1, 0]], 16_385)


def test_searching_while_adding_and_removing(opened, monkeypatch):
    """What was added stays found while more is written out, when Milvus Lite by itself lets it go for a moment."""
    monkeypatch.setattr(MilvusIndex, "flush_from", 40)
    vectors = random_vectors(6000, 8)
    index, twin = opened().add(vectors[:5]), opened()
    stop, failed, missed, latest, searches = threading.Event(), [], [], [0], []

    def search(index):
        while not stop.is_set():
            known = latest[0]
            try:
                found = index.search(vectors[known : known + 5], 1).ids[:, 0]
            except Exception as error:
                failed.append(error)
                return
            searches.append(known)
            if not np.array_equal(found, np.arange(known, known + 5)):
                missed.append((known, found))

    threads = [threading.Thread(target=search, args=(each,)) for each in (index, index, twin)]
    for thread in threads:
        thread.start()
    for begin in range(60, 6000, 60):
        index.add(vectors[begin : begin + 5], np.arange(begin, begin + 5))
        latest[0] = begin
        index.add(vectors[begin + 5 : begin + 60], np.arange(begin + 5, begin + 60))
        index.remove(index.ids[-20:])
        if failed or len(searches) > 300:
            break
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed and not missed and len(searches) > 10
    assert len(index) == 5 + 40 * (begin // 60) == len(twin.refresh())


# ---- files -------------------------------------------------------------------------------------------------------


REOPEN = """
import sys
from helpers.search.index import open_index
try:
    open_index("milvus:" + sys.argv[1])
except OSError as error:
    print(type(error).__name__, error, flush=True)
sys.stdin.readline()
index = open_index("milvus:" + sys.argv[1])
print(index.ids.tolist(), index.dim, index.search([[1, 0, 0]], 2).ids.tolist(), index.payload([9])[0].path, flush=True)
"""


def test_an_index_can_be_collected_while_a_lock_is_held_that_closing_needs(tmp_path):
    """The garbage collector may run while a thread pool of Python holds its lock, which a flush of Milvus needs."""
    held = [open_index(f"milvus:{tmp_path / 'gallery'}.db").add(random_vectors(5, 4))]

    def collect():
        with futures.thread._global_shutdown_lock:
            held.clear()
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the garbage collector waits for its own thread"
    with closing(open_index(f"milvus:{tmp_path / 'gallery'}.db")) as again:
        assert len(again) == 5


def test_a_file_is_for_one_process_at_a_time_and_found_again_by_the_next(opened, tmp_path, capfd):
    index = opened().add([[0, 1, 0], [2, 0, 0], [1, 1, 0]], [9, 8, 1], [Payload(path="a"), Payload(), Payload()])
    index.remove([1])
    twin = opened()
    twin.close()
    assert index.search([[1, 0, 0]], 1).ids.tolist() == [[8]], "one that was closed does not close the other"
    child = start(REOPEN, tmp_path / "gallery.db")
    refusal = child.stdout.readline()
    assert refusal.startswith("IndexFileError") and "gallery.db" in refusal and "another process" in refusal
    index.close()
    output, complaints = child.communicate("closed\n", timeout=60)
    assert (output, complaints) == ("[8, 9] 3 [[8, 9]] a\n", "")
    again = opened()
    assert again.add([[5, 5, 5]]).ids.tolist() == [8, 9, 10]
    assert capfd.readouterr() == ("", "")


ADD = """
import sys
import numpy as np
from helpers.search.index import open_index
from helpers.search.backends.remote import Payload
index = open_index("milvus:" + sys.argv[1])
index.chunk_rows = 50
vectors = np.random.default_rng(0).standard_normal((20_000, 8)).astype(np.float32)
real = index._send
def send(vectors, ids, payload):
    print(ids[-1], flush=True)
    return real(vectors, ids, payload)
index._send = send
index.add(vectors, payload=[Payload(str(i), "", i) for i in range(20_000)])
"""


def test_killed_while_adding_it_holds_whole_parts_and_takes_the_rest(opened, tmp_path):
    child = start(ADD, tmp_path / "gallery.db")
    sent = [int(child.stdout.readline()) for _ in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    sent += [int(line) for line in child.stdout.read().split()]
    child.stderr.close()
    assert child.wait() == -signal.SIGKILL and sent[-1] < 19_999
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index = opened()
    vectors = random_vectors(20_000, 8)
    # Whatever was acknowledged is in: all parts but the one that was on its way.
    assert sent[-2] + 1 <= len(index) <= sent[-1] + 1 and len(index) % 50 == 0
    assert all("gallery.db was not closed or is damaged" in str(each.message) for each in caught)
    assert np.array_equal(index.ids, np.arange(len(index)))
    some = index.ids[:: len(index) // 20]
    assert index.search(vectors[some], 1).ids[:, 0].tolist() == some.tolist()
    assert [each.label for each in index.payload(some)] == some.tolist()
    rest = np.arange(len(index), 1500)
    index.add(vectors[rest], rest)
    assert np.array_equal(index.refresh().ids, np.arange(1500))
    assert index.search(vectors[[0, 1499]], 1).ids.tolist() == [[0], [1499]]


def test_a_saved_file_holds_no_vectors_and_notices_what_changed(opened, tmp_path):
    vectors = random_vectors(100, 64)
    index = opened().add(vectors, np.arange(100) + 5)
    path = index.save(tmp_path / "a.index")
    assert path.stat().st_size < 100 * 8 + 1000
    loaded = load_index(path)
    assert (type(loaded), loaded.spec, loaded.dim) == (MilvusIndex, index.spec, 64)
    assert np.array_equal(loaded.search(vectors[:2], 3).ids, index.search(vectors[:2], 3).ids)
    index.remove([7])
    with pytest.raises(
        IndexFileError, match=r"a.index.*holds 99 vectors now, 100 when it was saved; 1 ids differ \(id 7\)"
    ):
        load_index(path)


class Flat:
    """Describes an image by its pixels."""

    name, dim, fingerprint = "flat", 12, "flat"

    def extract(self, images, **_):
        return self.extract_arrays([read_image(path) for path in images.paths])

    def extract_arrays(self, images):
        return np.array([image.reshape(-1) for image in images], np.float32)


def test_an_engine_keeps_its_vectors_there(opened, tmp_path):
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)):
        (tmp_path / "images" / "all").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / "all" / f"{number}.png")
    gallery = from_folder(tmp_path / "images")
    engine = Engine(Flat(), opened("?metric=euclidean")).fit(gallery)
    results = engine.query(gallery.paths[3], 2)
    assert (results[0].id, results[0].score) == (3, 0)
    assert engine.index.payload([3]) == [Payload("3.png", str(gallery.paths[3]), 0)]
    # Fitted again, the collection holds the new gallery alone.
    assert engine.fit(gallery.subset(range(1, 6))).index.ids.tolist() == [0, 1, 2, 3, 4]
    assert engine.index.payload([0])[0].name == "1.png"
    engine.fit(gallery)
    loaded = Engine.load(engine.save(tmp_path / "engine"), Flat())
    assert loaded.query(gallery.paths[3], 2).ranking.ids.tolist() == results.ranking.ids.tolist()
    with pytest.raises(ValueError, match="the index must be empty, it holds 6"):
        Engine(Flat(), opened("?metric=euclidean"))
    loaded.index.clear()
    with pytest.raises(IndexFileError, match="gallery.db holds 0 vectors now, 6 when it was saved"):
        Engine.load(tmp_path / "engine", Flat())
    assert len(loaded.fit(gallery)) == 6
    loaded.index.close()


def test_an_interrupted_compaction_is_repeated(opened, tmp_path, monkeypatch):
    """The server has the changes already, but the engine's folder does not say so."""
    vectors = random_vectors(30, 12)
    files = [tmp_path / f"{row}.png" for row in range(30)]
    gallery = ImageSet("rows", tuple(files[:20]), np.zeros(20, np.int64), ("all",))
    folder = Engine(Flat(), opened()).fit_extracted(gallery, vectors[:20], [None] * 20).save(tmp_path / "engine")
    with LiveEngine.open(folder, Flat()) as live:
        live.add_extracted(files[20:], vectors[20:], ["all"] * 10)
        live.remove([3, 25])
        expected = live.engine.query_vector(vectors[25], 28).ranking
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, "write_index", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
            with pytest.raises(OSError, match="no space left"):
                live.compact()
        live.engine.index.base.close()
    sent = opened()
    assert 20 in sent.ids and 3 not in sent.ids, "the server has the changes"
    sent.close()
    with LiveEngine.open(folder, Flat()) as live:
        assert np.array_equal(live.engine.query_vector(vectors[25], 28).ranking.ids, expected.ids)
        assert live.compact() == 12 and live.changes == 0 and len(live) == 28
        assert np.array_equal(live.engine.query_vector(vectors[25], 28).ranking.ids, expected.ids)
        # What no change explains is still an error.
        live.engine.index.remove([0])
        live.engine.index.close()
    with pytest.raises(IndexFileError, match=r"holds 27 vectors now, 28 when it was saved; 1 ids differ \(id 0\)"):
        Engine.load(folder, Flat())


def test_an_excluded_image_does_not_exceed_the_limit_of_results(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(MilvusIndex, "max_k", 20)
    vectors, files = random_vectors(40, 12), [tmp_path / f"{row}.png" for row in range(40)]
    gallery = ImageSet("rows", tuple(files[:30]), np.zeros(30, np.int64), ("all",))
    folder = Engine(Flat(), opened()).fit_extracted(gallery, vectors[:30], [None] * 30).save(tmp_path / "engine")
    with LiveEngine.open(folder, Flat()) as live:
        live.add_extracted(files[30:], vectors[30:], ["all"] * 10)
        found = live.engine.query_vector(vectors[0], 20, [0]).ranking.ids[0]
        live.engine.index.base.close()
    assert len(found) == 20 and 0 not in found
    assert set(found) == set(np.argsort(-vectors @ vectors[0] / np.linalg.norm(vectors, axis=1), kind="stable")[1:21])


def test_fitting_again_replaces_a_gallery_with_changes(opened, tmp_path):
    vectors, files = random_vectors(9, 12), [tmp_path / f"{row}.png" for row in range(9)]
    gallery = ImageSet("rows", tuple(files[:6]), np.zeros(6, np.int64), ("all",))
    folder = Engine(Flat(), opened()).fit_extracted(gallery, vectors[:6], [None] * 6).save(tmp_path / "engine")
    with LiveEngine.open(folder, Flat()) as live:
        live.add_extracted(files[6:], vectors[6:], ["all"] * 3)
        engine = live.engine.fit_extracted(gallery.subset(range(2)), vectors[:2], [None] * 2)
    assert engine.index.ids.tolist() == [0, 1] and engine.index.refresh().ids.tolist() == [0, 1]
    assert engine.index.payload([1])[0].name == "1.png"
    engine.index.close()


def test_a_spec_that_differs_from_what_was_made_is_refused(opened):
    opened().add(random_vectors(3, 2))
    for query, message in (("?metric=euclidean", "metric=COSINE, not L2"), ("?index=hnsw", "index=FLAT, not HNSW")):
        with pytest.raises(ValueError, match=f"gallery.db.*{message}"):
            opened(query)


def test_a_foreign_collection_is_refused(opened, tmp_path):
    client = MilvusClient(str(tmp_path / "gallery.db"))
    client.create_collection("gallery", dimension=4)
    with pytest.raises(ValueError, match="gallery.db.*did not make the collection"):
        opened()
    client.close()


def test_another_kind_of_file_is_named(tmp_path, capfd):
    path = tmp_path / "holiday.db"
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(IndexFileError, match="holiday.db cannot be opened.*it is a file"):
        open_index(f"milvus:{path}")
    assert path.read_bytes() == b"SQLite format 3\0"
    (tmp_path / "way").write_text("in the way")
    with pytest.raises(IndexFileError, match="way/a.db cannot be opened"):
        open_index(f"milvus:{tmp_path / 'way' / 'a.db'}")
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A file that was flushed and then got some more, closed."""
    path = tmp_path_factory.mktemp("milvus") / "complete.db"
    with closing(open_index(f"milvus:{path}")) as index:
        index.flush_from = 100
        index.add(random_vectors(200, 4)).add(random_vectors(50, 4, 1)).add(random_vectors(50, 4, 2))
    return path


def test_a_file_that_was_cut_short_is_an_error_or_a_warning_that_names_it(complete, tmp_path):
    files = [path for path in complete.rglob("*") if path.is_file() and path.stat().st_size and path.suffix != ".prev"]
    assert {"manifest.json", "schema.json"} <= {path.name for path in files}
    assert {".parquet", ".idx"} <= {path.suffix for path in files}
    outcomes = {}
    for number, file in enumerate(files):
        copy = tmp_path / f"cut{number}.db"
        shutil.copytree(complete, copy)
        short = copy / file.relative_to(complete)
        short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with closing(open_index(f"milvus:{copy}")) as index:
                    outcomes[file.name] = len(index), [str(each.message) for each in caught]
            except OSError as error:
                assert f"{copy.name} cannot be opened" in str(error)
                outcomes[file.name] = str(error)
    for name, outcome in outcomes.items():
        if not isinstance(outcome, str) and outcome[0] != 300:
            assert outcome[1] and "may have lost its latest changes" in outcome[1][0], name
    # Milvus Lite goes back to the manifest before, from before the last flush.
    assert outcomes["manifest.json"][0] == 200 and "schema.json" in outcomes["schema.json"]


def test_what_was_not_flushed_is_cut_at_a_whole_part(opened, tmp_path):
    index = opened().add(random_vectors(20, 4)).add(random_vectors(20, 4, 1))
    copy = tmp_path / "copy.db"
    shutil.copytree(tmp_path / "gallery.db", copy)
    (log,) = copy.rglob("wal_data_*.arrow")
    log.write_bytes(log.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="copy.db was not closed.*; 20 vectors are there"):
        short = opened(name="copy")
    assert np.array_equal(short.ids, np.arange(20))
    short.add(random_vectors(20, 4, 1))
    assert np.array_equal(short.search(random_vectors(9, 4, 2), 40).ids, index.search(random_vectors(9, 4, 2), 40).ids)


def test_parameters_of_building_and_searching_reach_milvus(opened, monkeypatch):
    monkeypatch.setattr(MilvusIndex, "flush_from", 100)
    vectors, queries = random_vectors(600, 8), random_vectors(20, 8, 1)
    truth = open_index("exact:cosine").add(vectors).search(queries, 10)
    index = opened("?index=ivf&nlist=6&nprobe=1").add(vectors)

    def recall():
        found = index.search(queries, 10).ids
        return np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth.ids, strict=True)])

    assert 0.2 < once_built(recall, lambda found: found < 1) < 0.9
    assert index.tune(nprobe=6).spec.endswith("nlist=6&nprobe=6") and recall() == 1
    with pytest.raises(ValueError, match="cannot change 'nlist'.*ef, nprobe"):
        index.tune(nlist=3)
    with pytest.raises(ValueError, match="ef is not an option of index=ivf"):
        index.tune(ef=3)


# ---- a server ----------------------------------------------------------------------------------------------------


class Moody(MilvusServicer):
    """Milvus Lite's own service; each writing request takes one of the faults, if there is one."""

    def __init__(self, db):
        super().__init__(db)
        self.faults = []
        self.writes = 0

    def Upsert(self, request, context):  # noqa: N802 – the protocol's name
        return self.moody(super().Upsert, request, context)

    def Delete(self, request, context):  # noqa: N802
        return self.moody(super().Delete, request, context)

    def moody(self, do, request, context):
        self.writes += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault == "busy":
            status = common_pb2.Status(code=8, error_code=common_pb2.RateLimit, reason="rate limit exceeded")
            return milvus_pb2.MutationResult(status=status)
        if fault == "full":
            return milvus_pb2.MutationResult(status=common_pb2.Status(code=1100, error_code=1, reason="disk is full"))
        if fault == "slow":
            time.sleep(1)
        result = do(request, context)
        if fault == "lost":
            context.abort(grpc.StatusCode.UNAVAILABLE, "the response was lost")
        return result


@pytest.fixture
def served(tmp_path):
    """A service on loopback, and the index opened in it with a short time-out."""
    db = MilvusLite(str(tmp_path / "served.db"))
    service, server = Moody(db), grpc.server(futures.ThreadPoolExecutor(4))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    service.stop = lambda: server.stop(0).wait()
    index = open_index(f"milvus://127.0.0.1:{port}/images?timeout=0.7")
    yield service, index
    index.close()
    server.stop(0).wait()
    db.close()


def test_a_server_is_spoken_to_as_a_file_is(served, opened):
    _, index = served
    index.add(random_vectors(30, 3), payload=[Payload(str(i)) for i in range(30)]).remove([4])
    again = open_index(index.spec)
    assert (again.spec, again.ids.tolist(), again.dim) == (index.spec, index.ids.tolist(), 3)
    assert again.payload([29]) == [Payload("29")]
    local = opened().add(random_vectors(30, 3)).remove([4])
    assert np.array_equal(again.search(random_vectors(5, 3, 1), 7).ids, local.search(random_vectors(5, 3, 1), 7).ids)
    again.close()


def test_a_busy_server_gets_another_request_and_is_reported(served, capfd):
    service, index = served
    index.chunk_rows = 4
    service.faults = ["busy", "busy", None, "busy", "busy", "busy"]
    with pytest.raises(PartlyIndexed, match="4 of 10 vectors were added.*3 attempts: rate limit exceeded") as caught:
        index.add(random_vectors(10, 3))
    assert (index.ids.tolist(), caught.value.missing.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9])
    service.faults = ["full"]
    with pytest.raises(ServerRefused, match="refused: disk is full"):
        index.add(random_vectors(6, 3), caught.value.missing)
    index.add(random_vectors(10, 3)[4:], caught.value.missing)
    assert index.ids.tolist() == index.refresh().ids.tolist() == list(range(10))
    assert index.search(random_vectors(10, 3), 1).ids[:, 0].tolist() == list(range(10))
    assert capfd.readouterr() == ("", "")


def test_an_result_that_was_lost_is_no_vector_lost_or_doubled(served):
    service, index = served
    service.faults = ["lost", "slow"]
    index.add(random_vectors(4, 3))
    assert service.writes >= 2
    assert index.ids.tolist() == index.refresh().ids.tolist() == [0, 1, 2, 3]
    assert index.search(random_vectors(1, 3), 10).ids[0, 4] == PAD


def test_a_server_that_goes_leaves_what_was_sent_in_doubt(served):
    service, index = served
    index.chunk_rows = 4
    real, calls = service.moody, []

    def go_after_one(do, request, context):
        calls.append(1)
        if len(calls) == 2:
            threading.Thread(target=service.stop).start()
            time.sleep(0.3)
        return real(do, request, context)

    service.moody = go_after_one
    start = time.monotonic()
    with pytest.raises(PartlyIndexed, match="docker compose up milvus") as caught:
        index.add(random_vectors(10, 3))
    assert time.monotonic() - start < 6
    error = caught.value
    assert [each.tolist() for each in (error.done, error.uncertain, error.missing)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert index.ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(ServerUnavailable):
        index.search(random_vectors(1, 3), 1)


def test_a_server_that_is_away_is_named_with_the_remedy(capfd):
    with reserved_port() as port:
        start = time.monotonic()
        with pytest.raises(ServerUnavailable, match=f"127.0.0.1:{port} failed in 3.*docker compose up milvus"):
            open_index(f"milvus://127.0.0.1:{port}/x")
        assert time.monotonic() - start < 5
        assert capfd.readouterr() == ("", "")


def test_a_server_that_says_nothing_is_given_up_after_the_time_out():
    with closing(socket.socket()) as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        start = time.monotonic()
        with pytest.raises(ServerUnavailable, match="127.0.0.1:"):
            open_index(f"milvus://127.0.0.1:{mute.getsockname()[1]}/x?timeout=0.2")
        assert time.monotonic() - start < 3


def test_all_kinds_are_tested():
    assert set(KINDS) == {"flat", "hnsw", "ivf", "ivf_sq8"}
