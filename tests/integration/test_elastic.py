"""Elasticsearch: requests, responses, and all failures.

Most tests use `FakeServer`, an HTTP server on loopback that returns some documented responses of Elasticsearch.
That tests our side: requests, retries, accounting. test_elastic_server.py tests Elasticsearch itself.
"""

import json
import re
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

from helpers.loopback import reserved_port
from helpers.search.backends import remote
from helpers.search.backends.remote import (
    PartlyIndexed,
    PartlyRemoved,
    Payload,
    RetryPolicy,
    ServerRefused,
    ServerUnavailable,
)
from helpers.search.index import IndexFileError, load_index, open_index
from helpers.search.ranking import PAD


def random_vectors(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


class FakeServer(ThreadingHTTPServer):
    """Responds like Elasticsearch to the index's requests, and fails on demand.

    requests : (method, path, body) of every request; bodies parsed, bulk bodies as lists of lines.
    faults : one is taken by each bulk request: a status for the whole of it, a dict id → status for some of its
        items, "hang" (no response), "lost" (done, but no response), "vanish" (not done, and no response from then on),
        "short" (too few items), None (as usual).
    """

    daemon_threads = True
    # Else closing would wait for connections that the client keeps open.
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Results)
        self.indexes: dict[str, dict] = {}
        self.requests: list[tuple] = []
        self.headers: list = []
        self.faults: list = []
        self.raw: bytes | None = None
        self.product = True
        self.away = False
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def location(self):
        return f"//127.0.0.1:{self.server_port}/images"

    def bodies(self, ending):
        return [body for _, path, body in self.requests if path.endswith(ending)]

    def close(self):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Some tests close the connection."""


class Results(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write per response: the second of two would wait 40 ms for the client's acknowledgement of the first.
    wbufsize = -1

    def log_message(self, *_):
        pass

    def result(self):
        path = urlsplit(self.path).path
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.away:
            self.close_connection = True
            return
        if path.endswith("_bulk"):
            assert content.endswith(b"\n") and "x-ndjson" in self.headers["Content-Type"]
            body = [json.loads(line) for line in content.splitlines()]
        else:
            body = json.loads(content) if content else None
        self.server.requests.append((self.command, path, body))
        self.server.headers.append(self.headers)
        if self.server.raw is not None:
            self.reply(200, self.server.raw)
            return
        _, name, *action = path.split("/")
        found = getattr(self, "do" + (action[0] if action else "_" + self.command.lower()))(name, body)
        if found is not None:
            self.reply(*found)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = result

    def reply(self, status, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if self.server.product:
            self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=9")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, name):
        return 404, {"error": {"type": "index_not_found_exception", "reason": f"no such index [{name}]"}, "status": 404}

    def do_head(self, name, _):
        return (200 if name in self.server.indexes else 404), {}

    def do_put(self, name, body):
        if name in self.server.indexes:
            return 400, {"error": {"type": "resource_already_exists_exception", "reason": f"index [{name}] exists"}}
        self.server.indexes[name] = {"made": body, "documents": {}}
        return 200, {"acknowledged": True}

    def do_delete(self, name, _):
        self.server.indexes.pop(name, None)
        return 200, {"acknowledged": True}

    def do_mapping(self, name, _):
        if name not in self.server.indexes:
            return self.missing(name)
        return 200, {name: {"mappings": self.server.indexes[name]["made"]["mappings"]}}

    def do_refresh(self, name, _):
        return 200, {"_shards": {}}

    def do_bulk(self, name, lines):
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang":
            self.server.closing.wait(10)
            return None
        if fault == "vanish":
            self.server.away = self.close_connection = True
            return None
        if isinstance(fault, int):
            return fault, {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}
        documents, items, lines = self.server.indexes[name]["documents"], [], iter(lines)
        for line in lines:
            ((kind, about),) = line.items()
            document = next(lines) if kind == "index" else None
            status = (fault or {}).get(int(about["_id"])) if isinstance(fault, dict) else None
            item = {"_index": name, "_id": about["_id"], "status": status or (201 if kind == "index" else 200)}
            if status:
                item["error"] = {"type": "some_exception", "reason": f"no room for {about['_id']}"}
            elif kind == "index":
                documents[about["_id"]] = document
            elif documents.pop(about["_id"], None) is None:
                item["status"] = 404
            items.append({kind: item})
        if fault == "lost":
            self.close_connection = True
            return None
        return 200, {
            "errors": any("error" in i for each in items for i in each.values()),
            "items": items[: -1 if fault == "short" else None],
        }

    def do_mget(self, name, body):
        documents = self.server.indexes[name]["documents"]
        docs = []
        for key, fields in ((each["_id"], each["_source"] or ()) for each in body["docs"]):
            source = {field: documents[key][field] for field in fields} if key in documents else {}
            docs.append({"_id": key, "found": key in documents, "_source": source})
        return 200, {"docs": docs}

    def do_search(self, name, body):
        documents = self.server.indexes[name]["documents"]
        if "knn" not in body and "query" not in body:
            after = body.get("search_after", [-1])[0]
            ids = sorted(i for i in map(int, documents) if i > after)[: body["size"]]
            hits = [{"_id": str(i), "_score": None, "sort": [i]} for i in ids]
        else:
            script = body.get("query", {}).get("script_score", {}).get("script")
            query = np.array(body["knn"]["query_vector"] if script is None else script["params"]["v"])
            similarity = self.server.indexes[name]["made"]["mappings"]["properties"]["vector"].get("similarity")
            condition = body["knn"].get("filter") if script is None else body["query"]["script_score"]["query"]
            hits = []
            for key, document in documents.items():
                if not passes(condition, document):
                    continue
                vector = np.array(document["vector"])
                cosine = vector @ query / max(np.linalg.norm(vector) * np.linalg.norm(query), 1e-30)
                distance = np.linalg.norm(vector - query)
                score = {
                    "cosineSimilarity(params.v, 'vector') + 1.0": cosine + 1,
                    "1 / (1 + l2norm(params.v, 'vector'))": 1 / (1 + distance),
                    "cosine": (1 + cosine) / 2,
                    "l2_norm": 1 / (1 + distance**2),
                }[similarity if script is None else script["source"]]
                hits.append({"_id": key, "_score": float(np.float32(score))})
            hits = sorted(hits, key=lambda hit: (-hit["_score"], int(hit["_id"])))[: body["size"]]
        return 200, {"hits": {"hits": hits}}


def passes(condition, document):
    """Whether a document passes a filter of one ``terms`` clause, or none."""
    if condition is None or "match_all" in condition:
        return True
    ((kind, (clause,)),) = condition["bool"].items()
    return (document["id"] in clause["terms"]["id"]) == {"filter": True, "must_not": False}[kind]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "RetryPolicy", lambda: RetryPolicy(attempts=3, first=0.01, longest=0.02))


@pytest.fixture
def server():
    with closing(FakeServer()) as server:
        yield server


def opened(server, query=""):
    return open_index(f"elasticsearch:{server.location}{query}")


def stored(server):
    return sorted(map(int, server.indexes["images"]["documents"]))


# ---- names -------------------------------------------------------------------------------------------------------


def test_a_spec_opens_an_index_that_knows_its_spec(server):
    for query in ("", "?metric=euclidean", "?candidates=50&metric=cosine&replicas=1&search=approximate&shards=3"):
        index = opened(server, query)
        assert index.spec == f"elasticsearch:{server.location}{query}"
        assert (len(index), index.dim) == (0, None)
    assert opened(server, "?metric=l2").metric == "euclidean"
    assert not server.indexes, "opening makes nothing"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("elasticsearch:images", "write elasticsearch://host:9200/name"),
        ("elasticsearch://host:9200", "write elasticsearch://host:9200/name"),
        ("elasticsearch://host/Images", "lower-case"),
        ("elasticsearch://host/x?metric=manhattan", "cosine, euclidean"),
        ("elasticsearch://host/x?search=fuzzy", "exact or approximate"),
        ("elasticsearch://host/x?candidates=5", "search=approximate"),
        ("elasticsearch://host/x?candidates=10001&search=approximate", "10000"),
        ("elasticsearch://host/x?index=hnsw", "no option 'index'"),
        ("elasticsearch://host/x?timeout=0", "timeout must be"),
        ("elasticsearch://me:hush@host/x", "sign_in"),
    ],
)
def test_a_wrong_spec_is_refused_before_any_request(spec, message):
    with pytest.raises(ValueError, match=message):
        open_index(spec)


def test_a_key_is_shown_to_the_server_only(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_KEYS", {})
    remote.sign_in(f"127.0.0.1:{server.server_port}", "hush-hush")
    index = opened(server).add(random_vectors(2, 3))
    assert {headers["Authorization"] for headers in server.headers} == {"ApiKey hush-hush"}
    assert "hush" not in index.spec + repr(index)
    assert b"hush" not in index.save(tmp_path / "a.index").read_bytes()
    server.headers.clear()
    load_index(tmp_path / "a.index")
    assert server.headers[0]["Authorization"] == "ApiKey hush-hush"


# ---- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "vector", "settings"),
    [
        ("", {"index": False}, (1, 0)),
        (
            "?metric=euclidean&replicas=2&search=approximate&shards=4",
            {"index": True, "similarity": "l2_norm", "index_options": {"type": "hnsw"}},
            (4, 2),
        ),
    ],
)
def test_the_mapping(server, query, vector, settings):
    opened(server, query).add(random_vectors(1, 3))
    made = server.indexes["images"]["made"]
    assert made["mappings"]["properties"] == {
        "id": {"type": "long"},
        "vector": {"type": "dense_vector", "dims": 3} | vector,
        "name": {"type": "keyword"},
        "path": {"type": "keyword"},
        "label": {"type": "long"},
    }
    assert made["mappings"]["dynamic"] == "strict"
    assert made["settings"] == {"number_of_shards": settings[0], "number_of_replicas": settings[1]}


def test_a_bulk_request_is_an_action_and_a_document_in_turn(server):
    opened(server).add([[1, 0.5], [0, 2]], [7, 2**62], payload=[Payload("a.png", "x/a.png", 4), Payload()])
    assert server.bodies("_bulk") == [
        [
            {"index": {"_id": "7"}},
            {"id": 7, "vector": [1.0, 0.5], "name": "a.png", "path": "x/a.png", "label": 4},
            {"index": {"_id": str(2**62)}},
            {"id": 2**62, "vector": [0.0, 2.0], "name": "", "path": "", "label": -1},
        ]
    ]
    assert server.requests[-1][1] == "/images/_refresh"


@pytest.mark.parametrize(
    ("metric", "script"),
    [("cosine", "cosineSimilarity(params.v, 'vector') + 1.0"), ("euclidean", "1 / (1 + l2norm(params.v, 'vector'))")],
)
def test_an_exact_search_is_a_script_over_all(server, metric, script):
    opened(server, f"?metric={metric}").add(random_vectors(4, 2)).search([[3, 4]], 2)
    assert server.bodies("_search")[-1] == {
        "query": {
            "script_score": {"query": {"match_all": {}}, "script": {"source": script, "params": {"v": [3.0, 4.0]}}}
        },
        "sort": [{"_score": "desc"}, {"id": "asc"}],
        "track_scores": True,
        "track_total_hits": False,
        "_source": False,
        "size": 2,
    }


@pytest.mark.parametrize(
    ("query", "k", "candidates"), [("", 2, 100), ("&candidates=30", 2, 30), ("&candidates=3", 9, 9)]
)
def test_an_approximate_search_is_knn_with_candidates(server, query, k, candidates):
    opened(server, f"?search=approximate{query}").add(random_vectors(9, 2)).search([[3, 4]], k)
    assert server.bodies("_search")[-1] == {
        "knn": {"field": "vector", "query_vector": [3.0, 4.0], "k": k, "num_candidates": candidates},
        "track_total_hits": False,
        "_source": False,
        "size": k,
    }


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_filters_are_terms_of_the_query(server, search):
    index = opened(server, f"?search={search}").add(random_vectors(40, 2))
    out, into = list(range(3, 23)), [1, 5, 30, 39]

    def condition():
        body = server.bodies("_search")[-1]
        return body["knn"]["filter"] if search == "approximate" else body["query"]["script_score"]["query"]

    found = index.search([[3, 4]], 30, excluded=out)
    assert sorted(found.ids[0, :20]) == [0, 1, 2, *range(23, 40)] and (found.ids[0, 20:] == PAD).all()
    assert condition() == {"bool": {"must_not": [{"terms": {"id": out}}]}}
    found = index.search([[3, 4]], 4, allowed=[*into, 99], excluded=out)
    assert sorted(found.ids[0]) == [PAD, 1, 30, 39]
    assert condition() == {"bool": {"filter": [{"terms": {"id": [1, 30, 39]}}]}}
    # A few results more instead of a filter.
    assert index.search([[3, 4]], 3, excluded=[0, 1]).ids.min() > 1
    assert server.bodies("_search")[-1]["size"] == 5


def test_long_lists_of_ids_are_not_sent(server, monkeypatch):
    """Most is allowed: some more results do. They don't: the list, or, where it is too long, the vectors themselves."""
    monkeypatch.setattr(remote, "_LISTED", 10)
    vectors = random_vectors(400, 3)
    index, exact = opened(server).add(vectors), open_index("exact:cosine").add(vectors)
    far, near = exact.search([[3, 4, 5]], 400).ids[0, ::-1][:40], exact.search([[3, 4, 5]], 350).ids[0]
    before = len(server.bodies("_search"))
    assert np.array_equal(index.search([[3, 4, 5]], 5, excluded=far).ids, exact.search([[3, 4, 5]], 5).ids)
    (body,) = server.bodies("_search")[before:]
    assert (body["size"], body["query"]["script_score"]["query"]) == (8, {"match_all": {}})
    expected = exact.search([[3, 4, 5]], 5, excluded=near).ids
    assert np.array_equal(index.search([[3, 4, 5]], 5, excluded=near).ids, expected)
    assert "bool" in server.bodies("_search")[-1]["query"]["script_score"]["query"]
    monkeypatch.setattr(type(index), "max_listed", 100)
    before = len(server.bodies("_search"))
    assert np.array_equal(index.search([[3, 4, 5]], 5, excluded=near).ids, expected)
    assert len(server.bodies("_search")) == before


def test_the_zero_vector_is_filtered_too(server):
    index = opened(server).add(random_vectors(40, 2))
    assert index.search([[0, 0]], 3, allowed=range(7, 40), excluded=[8]).ids.tolist() == [[7, 9, 10]]


def test_parts_are_bounded_in_rows_and_bytes(server):
    index = opened(server)
    index.chunk_rows = 4
    index.add(random_vectors(10, 3))
    assert [len(body) // 2 for body in server.bodies("_bulk")] == [4, 4, 2]
    server.requests.clear()
    index.chunk_rows, index.chunk_bytes = 5000, 20_000
    index.clear().add(1e-30 * random_vectors(40, 100), payload=[Payload("ü" * 100, "\x01" * 100)] * 40)
    sizes = [sum(len(json.dumps(line)) + 1 for line in body) for body in server.bodies("_bulk")]
    assert len(sizes) > 1 and max(sizes) <= 20_000


# ---- responses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["exact", "approximate"])
@pytest.mark.parametrize(
    ("metric", "ids", "scores"),
    [
        # From (1, 0): the gallery is (2, 0), (0, 3), (3, 4), (-1, 0).
        ("cosine", [0, 2, 1, 3], [1, 0.6, 0, -1]),
        ("euclidean", [0, 3, 1, 2], [-1, -2, -(10**0.5), -(20**0.5)]),
    ],
)
def test_scores_come_back_as_cosine_and_negated_distance(server, search, metric, ids, scores):
    index = opened(server, f"?metric={metric}&search={search}").add([[2, 0], [0, 3], [3, 4], [-1, 0]])
    ranking = index.search([[1, 0]], 6)
    assert ranking.ids.tolist() == [[*ids, PAD, PAD]]
    np.testing.assert_allclose(ranking.scores[0, :4], scores, atol=1e-6)


def test_the_zero_vector_is_refused_by_name_or_scored_zero(server):
    index = opened(server).add([[0, 1], [1, 0], [0, 2]], [5, 3, 4])
    with pytest.raises(ValueError, match=r"id 9 has the zero vector \(1 of 2 do\)"):
        index.add([[1, 1], [0, 0]], [8, 9])
    assert (index.ids.tolist(), stored(server)) == ([3, 4, 5], [3, 4, 5])
    ranking = index.search([[0, 0], [0, 1]], 2)
    assert ranking.ids.tolist() == [[3, 4], [4, 5]]
    assert len(server.bodies("_search")) == 1, "the zero vector is not sent"
    assert ranking.scores.tolist() == [[0, 0], [1, 1]]
    assert opened(server, "?metric=cosine").clear() is not None
    assert opened(server, "?metric=euclidean").add([[0, 0]]).search([[0, 0]], 1).scores.tolist() == [[0]]


def test_contents_are_found_again_by_whoever_opens_the_spec(server, monkeypatch):
    first = opened(server)
    first.add(random_vectors(25, 3), np.arange(0, 250, 10), payload=[Payload(f"{i}", f"p/{i}", i) for i in range(25)])
    first.remove([0, 240])
    monkeypatch.setattr(type(first), "page", 10)
    server.requests.clear()
    second = opened(server)
    assert (len(second), second.dim) == (23, 3)
    assert np.array_equal(second.ids, np.arange(10, 240, 10))
    assert [body.get("search_after") for body in server.bodies("_search")] == [None, [100], [200], [230]]
    assert second.payload([230, 10]) == [Payload("23", "p/23", 23), Payload("1", "p/1", 1)]
    np.testing.assert_allclose(second.vectors([230, 10]), random_vectors(25, 3)[[23, 1]], atol=1e-6)
    with pytest.raises(KeyError, match="240"):
        second.payload([10, 240])
    assert second.add(random_vectors(1, 3)).ids[-1] == 231
    assert len(first) == 23 and len(first.refresh()) == 24


def test_what_another_process_removed_may_be_removed_again(server):
    first = opened(server).add(random_vectors(3, 2))
    second = opened(server).remove([1])
    assert first.remove([1, 2]).ids.tolist() == [0] == second.refresh().ids.tolist()


def test_ids_that_were_used_do_not_come_back_by_themselves(server):
    index = opened(server).add(random_vectors(3, 2)).remove([2])
    assert index.refresh().add(random_vectors(1, 2)).ids.tolist() == [0, 1, 3]


def test_cleared_means_dropped(server):
    index = opened(server).add(random_vectors(3, 2)).clear()
    assert (len(index), index.dim, server.indexes) == (0, None, {})
    assert index.add(random_vectors(2, 5)).ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("query", "message"), [("?metric=euclidean", "metric=cosine, not"), ("?search=approximate", "search=exact, not")]
)
def test_a_spec_that_differs_from_what_was_made_is_refused(server, query, message):
    opened(server).add(random_vectors(3, 2))
    with pytest.raises(ValueError, match=message):
        opened(server, query)


def test_a_foreign_index_is_refused(server):
    server.indexes["images"] = {"made": {"mappings": {"properties": {"vector": {"dims": 3}}}}, "documents": {}}
    with pytest.raises(ValueError, match="did not make the index 'images'"):
        opened(server)


def test_a_saved_file_holds_no_vectors_and_notices_what_changed(server, tmp_path):
    vectors = random_vectors(200, 64)
    index = opened(server).add(vectors, np.arange(200) + 5)
    path = index.save(tmp_path / "a.index")
    assert path.stat().st_size < 200 * 8 + 1000
    loaded = load_index(path)
    assert (loaded.spec, loaded.dim, loaded.ids.tolist()) == (index.spec, 64, index.ids.tolist())
    assert np.array_equal(loaded.search(vectors[:2], 3).ids, index.search(vectors[:2], 3).ids)
    loaded.remove([7])
    with pytest.raises(
        IndexFileError, match=r"a.index.*holds 199 vectors now, 200 when it was saved; 1 ids differ \(id 7\)"
    ):
        load_index(path)
    index.refresh().add(vectors[:1], [1000])
    with pytest.raises(IndexFileError, match=r"200 vectors now, 200 when it was saved; 2 ids differ \(ids 7, 1000\)"):
        load_index(path)


def test_more_results_than_elasticsearch_gives_are_refused(server):
    index = opened(server).add(random_vectors(1, 2))
    index._ids = np.arange(20_000)
    with pytest.raises(ValueError, match="at most 10000"):
        index.search([[1, 0]], 10_001)


# ---- faults ------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_named_with_the_remedy():
    with reserved_port() as port, pytest.raises(ServerUnavailable) as caught:
        open_index(f"elasticsearch://127.0.0.1:{port}/x")
    assert re.search(f"127.0.0.1:{port} failed in 3 attempts.*docker compose up elastic", str(caught.value))


def test_a_server_that_is_slow_is_given_up_after_the_time_out(server):
    index = opened(server, "?timeout=0.1").add(random_vectors(2, 2))
    server.faults = ["hang"] * 3
    with pytest.raises(ServerUnavailable, match="no response within 0.1 s") as caught:
        index.add(random_vectors(3, 2))
    assert not isinstance(caught.value, PartlyIndexed)
    assert (len(server.bodies("_bulk")), index.ids.tolist()) == (4, [0, 1])
    assert index.add(random_vectors(3, 2), [2, 3, 4]).ids.tolist() == stored(server) == [0, 1, 2, 3, 4]


def test_a_busy_server_gets_another_request(server, monkeypatch):
    waits = []
    index = opened(server).add(random_vectors(2, 2))
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    server.faults = [429, 503]
    assert index.add(random_vectors(3, 2)).ids.tolist() == stored(server) == [0, 1, 2, 3, 4]
    assert len(waits) == 2 and waits[0] <= 0.01 and waits[1] <= 0.02
    assert server.bodies("_bulk")[1] == server.bodies("_bulk")[2] == server.bodies("_bulk")[3]


def test_a_server_that_stays_busy_took_nothing(server):
    index = opened(server).add(random_vectors(2, 2))
    server.faults = [429] * 3
    with pytest.raises(ServerUnavailable, match="3 attempts: 429 es_rejected_execution_exception: queue is full"):
        index.add(random_vectors(3, 2))
    assert index.ids.tolist() == stored(server) == [0, 1]
    assert not server.bodies("_mget"), "a server that turned all away leaves no doubt"


def test_only_what_was_rejected_is_sent_again(server):
    server.faults = [{1: 429, 3: 503}, {3: 429}]
    index = opened(server).add(random_vectors(5, 2))
    sent = [[int(line["index"]["_id"]) for line in body[::2]] for body in server.bodies("_bulk")]
    assert sent == [[0, 1, 2, 3, 4], [1, 3], [3]]
    assert index.ids.tolist() == stored(server) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("faults", "reason"),
    [([{3: 400}], "refused id 3: 400 some_exception: no room for 3"), ([{3: 429}] * 3, "in 3 attempts: 429 some_exc")],
)
def test_what_stays_rejected_is_accounted_for(server, faults, reason):
    index = opened(server)
    vectors = random_vectors(10, 2)
    # Parts: 0 1 2 4, then 3 5 6 7, then 8 9, which is not sent any more.
    ids = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 3])
    index.chunk_rows = 3
    server.faults = [None, *faults]
    with pytest.raises(PartlyIndexed, match=reason) as caught:
        index.add(vectors, ids)
    error = caught.value
    assert "5 of 10 vectors were added (ids 0, 1, 2, 4, 5), 5 were not (ids 3, 6, 7, 8, 9)" in str(error)
    assert index.ids.tolist() == error.done.tolist() == stored(server) == [0, 1, 2, 4, 5]
    assert error.missing.tolist() == [3, 6, 7, 8, 9] and not len(error.uncertain)
    left = np.isin(ids, error.missing)
    index.add(vectors[left], ids[left])
    assert index.ids.tolist() == opened(server).ids.tolist() == list(range(10))
    assert index.search(vectors, 1).ids[:, 0].tolist() == ids.tolist()


def test_what_was_added_before_an_error_is_found_at_once(server):
    index = opened(server)
    index.chunk_rows = 2
    server.faults = [None, 403]
    with pytest.raises(PartlyIndexed):
        index.add(random_vectors(4, 2))
    assert server.requests[-1][1] == "/images/_refresh"


def test_an_index_that_another_process_made_meanwhile_is_used(server):
    first, second = opened(server), opened(server)
    first.add(random_vectors(2, 2), [0, 1])
    second.add(random_vectors(2, 2), [2, 3])
    assert stored(server) == [0, 1, 2, 3]


def test_when_all_are_rejected_nothing_is_in(server):
    server.faults = [{0: 400, 1: 400}]
    index = opened(server)
    with pytest.raises(ServerRefused, match="refused id 0: 400"):
        index.add(random_vectors(2, 2))
    assert index.ids.tolist() == stored(server) == []


def test_a_lost_response_neither_loses_nor_doubles_a_vector(server):
    server.faults = ["lost"]
    index = opened(server).add(random_vectors(4, 2))
    assert len(server.bodies("_bulk")) == 2
    assert index.ids.tolist() == stored(server) == [0, 1, 2, 3]


def test_after_lost_responses_the_ids_are_checked(server):
    index = opened(server)
    index.chunk_rows = 3
    server.faults = ["lost"] * 3
    with pytest.raises(PartlyIndexed) as caught:
        index.add(random_vectors(5, 2))
    assert (caught.value.done.tolist(), caught.value.missing.tolist()) == ([0, 1, 2], [3, 4])
    assert index.ids.tolist() == stored(server) == [0, 1, 2]


def test_a_server_that_goes_in_the_middle_leaves_no_doubt_when_it_is_back(server):
    index = opened(server)
    index.chunk_rows = 2
    server.faults = [None, "lost", "vanish"]
    with pytest.raises(PartlyIndexed, match="2 are uncertain.*docker compose up.*refresh") as caught:
        index.add(random_vectors(6, 2))
    error = caught.value
    assert [each.tolist() for each in (error.done, error.missing, error.uncertain)] == [[0, 1], [4, 5], [2, 3]]
    assert index.ids.tolist() == [0, 1]
    with pytest.raises(ServerUnavailable):
        index.search([[1, 0]], 1)
    server.away = False
    assert index.search([[1, 0]], 6).ids.max() < 4
    assert index.ids.tolist() == stored(server) == [0, 1, 2, 3]
    assert index.add(random_vectors(2, 2), error.missing).ids.tolist() == stored(server) == [0, 1, 2, 3, 4, 5]


def test_a_removal_that_was_cut_short_is_accounted_for(server):
    index = opened(server).add(random_vectors(2500, 2))
    server.faults = [{5: 429}, {5: 403}]
    with pytest.raises(PartlyRemoved, match="999 of 2400 vectors were removed.*refused id 5: 403") as caught:
        index.remove(np.arange(2400))
    assert np.array_equal(caught.value.missing, [5, *range(1000, 2400)])
    assert index.ids.tolist() == stored(server) == [5, *range(1000, 2500)]
    server.faults, left = ["lost", "vanish"], caught.value.missing
    with pytest.raises(PartlyRemoved) as caught:
        index.remove(left)
    assert np.array_equal(caught.value.uncertain, [5, *range(1000, 1999)])
    server.away = False
    index.search([[1, 0]], 1)
    assert index.ids.tolist() == stored(server) == [*range(1999, 2500)]


def test_an_interruption_is_accounted_for_too(server, monkeypatch):
    index = opened(server)
    index.chunk_rows = 2
    real, calls = index._client.bulk, []

    def interrupt(**kwargs):
        calls.append(kwargs)
        result = real(**kwargs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(index._client, "bulk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        index.add(random_vectors(6, 2))
    assert index.ids.tolist() == [0, 1]
    assert index.add(random_vectors(1, 2), [9]).ids.tolist() == stored(server) == [0, 1, 2, 3, 9]


@pytest.mark.parametrize(
    "raw", [b"<html>hello</html>", b"[]", b"{}", b'{"took": 3', b'{"hits": {"hits": [{"_id": "x"}]}}']
)
def test_an_invalid_response_is_an_error_that_names_the_server(server, raw):
    index = opened(server).add(random_vectors(2, 2))
    server.raw = raw
    for call in (lambda: index.search([[1, 0]], 1), index.refresh, lambda: index.payload([0]), lambda: opened(server)):
        with pytest.raises(ServerRefused, match=f"127.0.0.1:{server.server_port}.*Is that its address"):
            call()
    with pytest.raises((PartlyIndexed, ServerRefused), match="127.0.0.1"):
        index.add(random_vectors(2, 2))
    server.raw = None
    index.search([[1, 0]], 1)
    assert index.ids.tolist() == stored(server) == [0, 1]


def test_a_bulk_result_about_fewer_than_were_sent_is_not_believed(server):
    server.faults = ["short"]
    index = opened(server)
    with pytest.raises(PartlyIndexed, match="the 2 items of the response are not the 3"):
        index.add(random_vectors(3, 2))
    assert index.ids.tolist() == stored(server) == [0, 1, 2]


def test_another_kind_of_server_is_told_from_elasticsearch(server):
    server.product = False
    with pytest.raises(ServerRefused, match="not Elasticsearch|does not respond like Elasticsearch"):
        opened(server)
    server.product = True
    opened(server).add(random_vectors(1, 2))
    server.product = False
    with pytest.raises(ServerRefused, match="not Elasticsearch"):
        opened(server)


def test_a_refusal_says_why(server):
    index = opened(server)
    server.faults = [413]
    with pytest.raises(ServerRefused, match="refused: 413 es_rejected"):
        index.add(random_vectors(2, 2))
    assert index.ids.tolist() == []


def test_threads_that_add_at_once_add_one_after_another(server):
    index = opened(server)

    def add(number):
        for _ in range(5):
            index.add(random_vectors(3, 2), payload=[Payload("", "", number)] * 3)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.ids.tolist() == stored(server) == list(range(60))
    labels = np.array([each.label for each in index.payload(index.ids)]).reshape(20, 3)
    assert (labels == labels[:, :1]).all() and (np.bincount(labels[:, 0]) == 5).all()


def test_wrong_payload_sends_nothing(server):
    index = opened(server)
    with pytest.raises(ValueError, match="one for each of 2 vectors, got 1"):
        index.add(random_vectors(2, 2), payload=[Payload()])
    assert not server.bodies("_bulk")


def test_failures_print_nothing(server, capfd):
    index = opened(server)
    server.faults = [429, "lost"]
    index.add(random_vectors(2, 2))
    assert capfd.readouterr() == ("", "")
