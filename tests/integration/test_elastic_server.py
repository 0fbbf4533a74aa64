"""Elasticsearch: a real server, without its script language, which is overloaded, killed and started again.

Maven Central has the server but not the script language, so the exact search is tested only where ELASTICSEARCH_URL
names a server. The first run downloads 45 MB.
"""

import numpy as np
import pytest

from helpers import paths
from helpers.search.backends import remote
from helpers.search.backends.remote import Payload, ServerRefused
from helpers.search.index import open_index
from tests.search_server import faults
from tests.search_server.faults import random_vectors, recall
from tests.search_server.server import ELASTICSEARCH, SearchServer, Unavailable

pytestmark = pytest.mark.slow

ADDRESS = paths.elasticsearch_address()
IDS = np.arange(3000) + 2**40
VECTORS, QUERIES = random_vectors(3000, 32), random_vectors(20, 32, 1)


@pytest.fixture(scope="module", autouse=True)
def short_waits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "RetryPolicy", lambda: faults.PATIENT)
        yield


@pytest.fixture(scope="module")
def server():
    try:
        prepared = SearchServer(ELASTICSEARCH, faults.SETTINGS)
    except Unavailable as error:
        pytest.skip(f"NOT TESTED: Elasticsearch itself, because {error}")
    with prepared:
        yield prepared


def check_searches(index, lowest):
    """Fill an empty index, and compare its searches with those of the exact index."""
    ids, vectors = IDS[:500], VECTORS[:500]
    index.add(vectors, ids, payload=[Payload(f"{i}.png", f"p/ü{i}", i) for i in range(500)])
    exact = open_index(f"exact:{index.metric}").add(vectors, ids)
    for filters in ({}, {"allowed": ids[:90]}, {"excluded": ids[:400]}):
        found, truth = index.search(QUERIES, 10, **filters), exact.search(QUERIES, 10, **filters)
        assert recall(found, truth) >= lowest
        same = found.ids == truth.ids
        np.testing.assert_allclose(found.scores[same], truth.scores[same], atol=1e-5)
    index.remove(ids[::2])
    again = open_index(index.spec)
    assert np.array_equal(again.ids, ids[1::2]) and again.dim == 32
    assert again.payload(ids[[3, 1]]) == [Payload("3.png", "p/ü3", 3), Payload("1.png", "p/ü1", 1)]
    # With the cosine, Elasticsearch stores vectors of length one, and converts them back.
    np.testing.assert_allclose(again.vectors(ids[[3, 1]]), vectors[[3, 1]], atol=1e-6)
    assert (again.search(QUERIES, 10).ids % 2 == 1).all()
    again.clear()
    assert len(open_index(index.spec)) == 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_approximate_search_finds_what_the_exact_index_finds(server, metric):
    check_searches(
        open_index(f"elasticsearch://{server.address}/graph-{metric}?metric={metric}&search=approximate"), 0.95
    )


@pytest.mark.skipif(
    ADDRESS is None,
    reason="NOT TESTED: the exact search of Elasticsearch. Start one (docker compose up elasticsearch) and set "
    "ELASTICSEARCH_URL=http://127.0.0.1:9200",
)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_exact_search_is_ours(metric):
    check_searches(open_index(f"elasticsearch://{ADDRESS}/lookalike-test?metric={metric}").clear(), 1)


def test_a_search_that_fails_says_why(server):
    index = open_index(f"elasticsearch://{server.address}/script").add(VECTORS[:3])
    with pytest.raises(ServerRefused, match=r"script_lang not supported \[painless\]"):
        index.search(QUERIES, 1)


def test_what_a_busy_server_rejects_is_accounted_for_and_sent_again(server):
    index = open_index(f"elasticsearch://{server.address}/busy?shards=30&search=approximate")
    faults.fill_busy_server(index, VECTORS[:600], IDS[:600])
    index.clear()


@pytest.mark.measured
def test_a_kill_in_the_middle_loses_nothing_that_was_acknowledged(server, monkeypatch):
    """The server starts again in this test, for half a minute; CI runs the same test with OpenSearch."""
    index = open_index(f"elasticsearch://{server.address}/killed?shards=3&search=approximate")
    faults.fill_killed_server(server, index, VECTORS, IDS, monkeypatch)
    exact = open_index("exact:cosine").add(VECTORS, IDS)
    assert recall(index.search(QUERIES, 10), exact.search(QUERIES, 10)) >= 0.95
