"""What the tests of OpenSearch and Elasticsearch have in common: they fill indexes of a busy or killed server."""

import threading

import numpy as np
import pytest

from helpers.search.backends.remote import PartlyIndexed, RetryPolicy
from helpers.search.index import open_index
from helpers.search.ranking import PAD

#: One thread writes and 20 parts wait for it, so that a request with a part for each of 30 shards is rejected in part.
SETTINGS = {"thread_pool.write.size": 1, "thread_pool.write.queue_size": 20}
PATIENT, HASTY = RetryPolicy(attempts=8, first=0.05, longest=1), RetryPolicy(attempts=3, first=0.01, longest=0.02)


def random_vectors(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def recall(found, truth):
    """The mean part of the true results that were found."""
    rows = zip(found.ids, truth.ids, strict=True)
    return np.mean([np.isin(true[true != PAD], ids).mean() for ids, true in rows])


def rejections(index):
    """How many parts of bulk requests the server rejected since its start."""
    (node,) = index._client.nodes.stats(metric="thread_pool")["nodes"].values()
    return node["thread_pool"]["write"]["rejected"]


def fill_busy_server(index, vectors, ids):
    """Fill an empty index of 30 shards: first without retries, of which a part is rejected; then the rest."""
    index.retries = RetryPolicy(attempts=1)
    with pytest.raises(PartlyIndexed, match="1 attempts: 429 .*rejected_execution_exception") as caught:
        index.add(vectors, ids)
    error = caught.value
    assert len(error.done) and len(error.missing) and not len(error.uncertain)
    assert np.array_equal(np.union1d(error.done, error.missing), ids)
    assert np.array_equal(open_index(index.spec).ids, error.done) and np.array_equal(index.ids, error.done)
    index.retries = PATIENT
    left, before = np.isin(ids, error.missing), rejections(index)
    index.add(vectors[left], ids[left])
    assert np.array_equal(open_index(index.spec).ids, ids)
    return rejections(index) - before


def kill_during_part(server, index, number, monkeypatch):
    """Kill the server when it has written some documents of the bulk request ``number``, or has just ended it."""
    send, client, sent = index._send, open_index(index.spec)._client, []

    def written():
        (stats,) = client.indices.stats(index=index._name, metric="indexing")["indices"].values()
        return stats["primaries"]["indexing"]["index_total"]

    def kill_when_above(count):
        while written() <= count:
            pass
        server.kill()

    def send_and_kill(*part):
        sent.append(part)
        if len(sent) != number:
            return send(*part)
        killer = threading.Thread(target=kill_when_above, args=(written(),))
        killer.start()
        try:
            return send(*part)
        finally:
            killer.join()

    monkeypatch.setattr(index, "_send", send_and_kill)


def fill_killed_server(server, index, vectors, ids, monkeypatch):
    """Fill an index of ten vectors with further ones, while the server is killed; start it, and add the rest."""
    index.chunk_rows = part = len(ids) // 3
    index.retries = HASTY
    index.add(vectors[:10], ids[:10])
    kill_during_part(server, index, 2, monkeypatch)
    with pytest.raises(PartlyIndexed, match="docker compose up .*Repeat the call with the missing") as caught:
        index.add(vectors[10:], ids[10:])
    monkeypatch.undo()
    error = caught.value
    # Usually, the second request has no response.
    assert np.array_equal(np.union1d(error.done, error.uncertain), ids[10 : 10 + 2 * part])
    assert np.isin(ids[10 : 10 + part], error.done).all() and np.array_equal(error.missing, ids[10 + 2 * part :])
    server.start()
    index.retries = PATIENT
    known = index.refresh().ids
    assert np.isin(ids[:10], known).all() and np.isin(error.done, known).all()
    assert not np.isin(error.missing, known).any()
    left = ~np.isin(ids, known)
    index.add(vectors[left], ids[left])
    assert np.array_equal(open_index(index.spec).ids, ids)
