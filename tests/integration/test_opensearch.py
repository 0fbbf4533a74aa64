"""OpenSearch: a real server, which is overloaded, killed and started again.

The first run downloads 50 MB from Maven Central. It is one server for all tests, because it needs ten seconds to start.
"""

import threading
from dataclasses import replace

import numpy as np
import pytest

from helpers.images import samples
from helpers.search.backends import remote
from helpers.search.backends.remote import Payload, ServerRefused
from helpers.search.engine import Engine
from helpers.search.index import IndexFileError, load_index, open_index
from helpers.search.ranking import PAD
from tests.search_server import faults
from tests.search_server.faults import random_vectors, recall
from tests.search_server.server import OPENSEARCH, SearchServer, Unavailable

pytestmark = pytest.mark.slow

#: As in the published system: 30 shards without a replica.
SHARDS = "shards=30&replicas=0"
#: Each shard costs the server time, and its start in the middle of the tests as much again.
FEW_SHARDS = "shards=8&replicas=0"
COUNT, DIM = 5000, 64
IDS = np.arange(COUNT) + 2**40
VECTORS, QUERIES = random_vectors(COUNT, DIM), random_vectors(20, DIM, 1)


@pytest.fixture(scope="module", autouse=True)
def short_waits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "RetryPolicy", lambda: faults.PATIENT)
        yield


@pytest.fixture(scope="module")
def server():
    try:
        prepared = SearchServer(OPENSEARCH, faults.SETTINGS)
    except Unavailable as error:
        pytest.skip(f"NOT TESTED: OpenSearch itself, because {error}")
    with prepared:
        yield prepared


@pytest.fixture
def opened(server):
    """``opened(name, query)``: an empty index, which is dropped after the test."""
    made = []

    def open_empty(name, query=""):
        made.append(open_index(f"opensearch://{server.address}/{name}?{query}").clear())
        return made[-1]

    yield open_empty
    for index in made:
        index.clear().close()


@pytest.fixture(scope="module")
def exact_index(server):
    return open_index(f"opensearch://{server.address}/exact?{SHARDS}").add(VECTORS, IDS)


@pytest.fixture(scope="module")
def graph_index(server):
    return open_index(f"opensearch://{server.address}/graph?search=approximate&{FEW_SHARDS}").add(VECTORS, IDS)


@pytest.fixture(scope="module")
def reference():
    return open_index("exact:cosine").add(VECTORS, IDS)


# ---- searches ----------------------------------------------------------------------------------------------------


def test_the_exact_search_is_ours(exact_index, reference):
    found, truth = exact_index.search(QUERIES, 10), reference.search(QUERIES, 10)
    assert np.array_equal(found.ids, truth.ids)
    np.testing.assert_allclose(found.scores, truth.scores, atol=1e-5)


def test_the_approximate_search_finds_nearly_all(graph_index, reference):
    found, truth = graph_index.search(QUERIES, 10), reference.search(QUERIES, 10)
    assert recall(found, truth) >= 0.95
    same = found.ids == truth.ids
    np.testing.assert_allclose(found.scores[same], truth.scores[same], atol=1e-5)


@pytest.mark.parametrize(
    "filters",
    [
        {"allowed": IDS[::50]},
        {"excluded": IDS[:3000]},
        {"allowed": IDS[:400], "excluded": IDS[100:390]},
        {"allowed": IDS[:3]},
    ],
    ids=["allowed", "excluded", "both", "fewer than k"],
)
def test_filters_select_before_the_search(exact_index, graph_index, reference, filters):
    truth = reference.search(QUERIES[:5], 10, **filters)
    found = exact_index.search(QUERIES[:5], 10, **filters)
    assert np.array_equal(found.ids, truth.ids)
    near = graph_index.search(QUERIES[:5], 10, **filters)
    assert np.isin(near.ids[near.ids != PAD], reference.ids[_selected(**filters)]).all()
    assert recall(near, truth) >= 0.95


def _selected(allowed=IDS, excluded=()):
    return np.isin(IDS, allowed) & ~np.isin(IDS, excluded)


@pytest.mark.parametrize("search", ["exact", "approximate"])
@pytest.mark.parametrize(
    ("metric", "ids", "scores"),
    [
        # From (1, 0): the gallery is (2, 0), (0, 3), (3, 4), (-1, 0), and (2, 0) once more.
        ("cosine", [0, 4, 2, 1, 3], [1, 1, 0.6, 0, -1]),
        ("euclidean", [0, 4, 3, 1, 2], [-1, -1, -2, -(10**0.5), -(20**0.5)]),
    ],
)
def test_scores_are_cosines_and_negated_distances(opened, search, metric, ids, scores):
    index = opened("scores", f"metric={metric}&search={search}").add([[2, 0], [0, 3], [3, 4], [-1, 0], [2, 0]])
    ranking = index.search([[1, 0]], 7)
    assert ranking.ids.tolist() == [[*ids, PAD, PAD]]
    np.testing.assert_allclose(ranking.scores[0, :5], scores, atol=1e-6)


def test_the_zero_vector_has_no_cosine(opened):
    index = opened("zero").add([[0, 1], [1, 0], [0, 2]], [5, 3, 4])
    with pytest.raises(ValueError, match=r"id 9 has the zero vector .*OpenSearch has no cosine"):
        index.add([[1, 1], [0, 0]], [8, 9])
    ranking = index.search([[0, 0], [0, 1]], 2)
    assert (ranking.ids.tolist(), ranking.scores.tolist()) == ([[3, 4], [4, 5]], [[0, 0], [1, 1]])


def test_equal_scores_are_in_the_order_of_the_ids(opened):
    index = opened("ties", "shards=3").add(np.ones((60, 4)), np.arange(60)[::-1])
    assert index.search(np.ones((1, 4)), 5).ids.tolist() == [[0, 1, 2, 3, 4]]


# ---- what is stored ----------------------------------------------------------------------------------------------


def test_another_process_finds_what_is_stored(exact_index, graph_index, tmp_path):
    again = open_index(exact_index.spec)
    assert np.array_equal(again.ids, IDS) and again.dim == DIM
    np.testing.assert_array_equal(again.vectors(IDS[[7, 3]]), VECTORS[[7, 3]])
    again = load_index(graph_index.save(tmp_path / "a.index"))
    assert np.array_equal(again.search(QUERIES[:2], 3).ids, graph_index.search(QUERIES[:2], 3).ids)


def test_additions_removals_and_payloads(opened, monkeypatch, tmp_path):
    index = opened("changes", "shards=2")
    index.add(random_vectors(25, 3), np.arange(0, 250, 10), payload=[Payload(f"{i}", f"p/ü{i}", i) for i in range(25)])
    path = index.save(tmp_path / "a.index")
    index.remove([0, 240])
    monkeypatch.setattr(type(index), "page", 10)
    again = open_index(index.spec)
    assert np.array_equal(again.ids, np.arange(10, 240, 10))
    assert again.payload([230, 10]) == [Payload("23", "p/ü23", 23), Payload("1", "p/ü1", 1)]
    with pytest.raises(KeyError, match="240"):
        again.payload([10, 240])
    again.add(random_vectors(2, 3))
    assert again.ids[-2:].tolist() == [231, 232]
    assert 231 in index.search(random_vectors(1, 3), 25).ids
    with pytest.raises(IndexFileError, match="holds 25 vectors now, 25 when it was saved; 4 ids differ"):
        load_index(path)
    index.clear()
    assert (len(open_index(index.spec)), open_index(index.spec).dim) == (0, None)
    assert index.add(random_vectors(2, 5)).ids.tolist() == [0, 1]


def test_indexes_of_others_and_of_other_settings_are_refused(opened):
    index = opened("mine").add(random_vectors(3, 2))
    for query, message in (("metric=euclidean", "metric=cosine, not"), ("search=approximate", "search=exact, not")):
        with pytest.raises(ValueError, match=message):
            open_index(f"{index.spec}?{query}")
    index.clear()
    index._client.indices.create(index="mine", body={"mappings": {"properties": {"vector": {"type": "keyword"}}}})
    with pytest.raises(ValueError, match="did not make the index 'mine'"):
        open_index(index.spec)


def test_documents_with_other_fields_are_refused(opened):
    index = opened("strict").add(random_vectors(3, 2))
    with pytest.raises(ServerRefused, match="refused id 8: 400 strict_dynamic_mapping_exception"):
        index._deliver(
            np.array([8]),
            np.zeros(1, np.int64),
            np.arange(1),
            lambda _: index._bulk([{"index": {"_id": "8"}}, {"size": 3}], np.array([8]), "index"),
        )
    assert open_index(index.spec).ids.tolist() == [0, 1, 2]


# ---- faults ------------------------------------------------------------------------------------------------------


def test_what_a_busy_server_rejects_is_accounted_for_and_sent_again(opened):
    faults.fill_busy_server(opened("busy", SHARDS), VECTORS[:600], IDS[:600])


def test_threads_that_add_at_once(opened):
    index = opened("threads", FEW_SHARDS)
    parts = np.split(np.arange(600), 6)
    threads = [threading.Thread(target=open_index(index.spec).add, args=(VECTORS[p], IDS[p])) for p in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(index.refresh().ids, IDS[:600])


def test_a_kill_in_the_middle_loses_nothing_that_was_acknowledged(server, opened, exact_index, reference, monkeypatch):
    """The server starts again in this test, and recovers all indexes of this module."""
    index = opened("killed", "shards=5&search=approximate")
    faults.fill_killed_server(server, index, VECTORS, IDS, monkeypatch)
    assert recall(index.search(QUERIES, 10), reference.search(QUERIES, 10)) >= 0.95
    # What was there before is there again.
    assert np.array_equal(exact_index.refresh().ids, IDS)
    assert np.array_equal(exact_index.search(QUERIES[:3], 10).ids, reference.search(QUERIES[:3], 10).ids)


def test_a_search_that_fails_says_why(opened, monkeypatch):
    index = opened("script").add(VECTORS[:3])
    monkeypatch.setattr(type(index), "scripts", {"cosine": "doc['vector'] +"})
    with pytest.raises(ServerRefused, match="400 script_exception: compile error"):
        index.search(QUERIES, 1)


# ---- an engine ---------------------------------------------------------------------------------------------------


def test_an_engine_on_a_server(opened, tmp_path):
    photos, drawings = samples.photos(), samples.drawings()
    engine = Engine("hsv-histogram", opened("engine", "search=approximate&shards=2")).fit(photos)
    exact = Engine("hsv-histogram", "exact:cosine").fit(photos)

    def agree():
        for path in (photos.paths[3], drawings.paths[0]):
            found, truth = engine.query(path, 5), exact.query(path, 5)
            assert found.ranking.ids.tolist() == truth.ranking.ids.tolist()
            np.testing.assert_allclose(found.ranking.scores, truth.ranking.scores, atol=1e-5)

    agree()
    for each in (engine, exact):
        each.add(drawings)
        each.remove([3, len(photos)])
    agree()
    id = int(engine.query(drawings.paths[5], 1).ranking.ids[0, 0])
    assert engine.index.payload([id])[0] == replace(engine.index.payload([id])[0], name=drawings.paths[5].name)
    engine = Engine.load(engine.save(tmp_path / "engine"))
    agree()
    engine.index.remove([0])
    with pytest.raises(IndexFileError, match="1 ids differ"):
        Engine.load(tmp_path / "engine")
