"""Elasticsearch as an index: every vector scored by a script, or the approximate search of its graph."""

import contextlib
import logging
import re
from collections.abc import Iterator

import numpy as np
import urllib3

from helpers import extras
from helpers.search.backends.remote import Payload, Rejected, RemoteIndex, ServerRefused, TryAgain, key_for, parse_place
from helpers.search.index import check_count
from helpers.search.index.filters import Selection
from helpers.search.ranking import PAD, best_first

with extras.importing("elasticsearch"):
    import elastic_transport
    from elasticsearch import ApiError, Elasticsearch, NotFoundError

#: Metric → similarity of the mapping, for ``search=approximate``.
SIMILARITIES = {"cosine": "cosine", "euclidean": "l2_norm"}
#: Metric → script, for ``search=exact``. Elasticsearch takes no negative score.
#: https://www.elastic.co/docs/reference/query-languages/query-dsl/query-dsl-script-score-query#vector-functions
SCRIPTS = {
    "cosine": "cosineSimilarity(params.v, 'vector') + 1.0",
    "euclidean": "1 / (1 + l2norm(params.v, 'vector'))",
}

#: What of the mapping's ``_meta`` says that an index is ours.
_MARK = "lookalike"

# It logs that a node failed, and raises so as well. An application that wants to see it configures this logger.
logging.getLogger("elastic_transport").addHandler(logging.NullHandler())


class ElasticIndex(RemoteIndex):
    """Elasticsearch's dense vectors, https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector.

    place : ``//host:9200/name``.
    metric : ``cosine`` or ``euclidean``. With cosine, the zero vector can't be added: Elasticsearch rejects it, or
        lets every later search fail (https://github.com/elastic/elasticsearch/pull/82241). As a query it has
        cosine 0 to everything, as elsewhere.
    search : ``exact`` (the default) runs a script over all vectors; ``approximate`` searches a graph (HNSW, of
        float32, not quantized) and may find fewer than k. It is chosen when the index is made.
    candidates : of ``approximate``: what each shard looks at (at least k), 100 if left out, at most 10,000.
    shards, replicas : parts the index is split into, and further copies of each; 1 and 0 if left out.
    timeout : seconds that one request may take, 30 if left out.
    tls : whether the server is talked to encrypted; its certificate has to be one that the system trusts.

    Scores are float32 of Elasticsearch, turned back into cosines and distances. In doing so the Euclidean distance
    ``d`` is off by about 1e-7 · (1 + d) with ``exact``; with ``approximate``, which returns 1 / (1 + d²), small
    distances are off by up to 3e-4.
    """

    scheme = "elasticsearch"
    option_types = {
        "metric": str,
        "search": str,
        "candidates": int,
        "shards": int,
        "replicas": int,
        "timeout": float,
        "tls": int,
    }
    search_options = ("candidates",)
    remedy = "Start it with `docker compose up elasticsearch` (compose.yaml), or give a longer timeout"
    #: ``index.max_result_window``, and the most that ``num_candidates`` can be.
    most = 10_000
    number_bytes = 25
    #: Of ids in one page.
    page = 10_000

    def __init__(
        self,
        place: str,
        metric: str | None = None,
        search: str | None = None,
        candidates: int | None = None,
        shards: int | None = None,
        replicas: int | None = None,
        timeout: float | None = None,
        tls: int | None = None,
    ):
        super().__init__(
            place, metric, timeout, search=search, candidates=candidates, shards=shards, replicas=replicas, tls=tls
        )
        self.approximate = search == "approximate"
        if search not in (None, "exact", "approximate"):
            raise ValueError(f"elasticsearch: search must be exact or approximate, got {search!r}")
        self._candidates = self._check_candidates(candidates)
        if replicas is not None and replicas < 0:
            raise ValueError(f"elasticsearch: replicas must not be negative, got {replicas}")
        self._settings = {
            "number_of_shards": check_count("shards", 1 if shards is None else shards),
            "number_of_replicas": replicas or 0,
        }
        self.address, self._name = parse_place("elasticsearch", place, 9200)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,200}", self._name):
            raise ValueError(
                f"elasticsearch: an index's name has lower-case letters, digits, _ - ., got {self._name!r}"
            )
        self._client = Elasticsearch(
            f"{'https' if tls else 'http'}://{self.address}",
            api_key=key_for(self.address),
            request_timeout=self.timeout,
            max_retries=0,
        )
        self.refresh()

    def _check_candidates(self, candidates: int | None) -> int:
        if candidates is None:
            return 100
        if not self.approximate or check_count("candidates", candidates) > self.most:
            raise ValueError(
                f"elasticsearch: candidates are of search=approximate, from 1 to {self.most}; got {candidates}"
            )
        return candidates

    def _tune(self, options):
        self._candidates = self._check_candidates(options.get("candidates"))
        super()._tune(options)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The client's errors as those of this house."""
        try:
            yield
        except elastic_transport.ConnectionTimeout as error:
            raise TryAgain(f"no answer within {self.timeout:g} s", doubtful=True) from error
        except elastic_transport.TlsError as error:
            raise ServerRefused(f"{self.address}: no encrypted connection: {error}.") from error
        except elastic_transport.ConnectionError as error:
            refused = any(isinstance(each, urllib3.exceptions.NewConnectionError) for each in error.errors)
            raise TryAgain(str(error.message), doubtful=not refused) from error
        except elastic_transport.TransportError as error:
            raise self._nonsense(error) from error
        except ApiError as error:
            # Without the header that a server of Elasticsearch sends there is no more to say than its message.
            status, reason = error.meta.status, _reason(error.body) or str(error)
            if status in (429, 502, 503, 504):
                raise TryAgain(f"{status} {reason}", doubtful=status != 429) from error
            raise ServerRefused(f"{self.address} refused: {status} {reason}.", doubtful=status >= 500) from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._nonsense(error) from error

    def _nonsense(self, error: Exception) -> ServerRefused:
        what = f"{type(error).__name__}: {error}"
        return ServerRefused(
            f"{self.address} answered what Elasticsearch does not ({what[:200]}). Is that its address?", doubtful=True
        )

    def _inspect(self):
        with self._translated():
            try:
                made = self._client.indices.get_mapping(index=self._name).body
            except NotFoundError as error:
                # The client checks the header that tells Elasticsearch only where there was no error.
                if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
                    raise self._nonsense(error) from error
                return None
            (mapping,) = (each["mappings"] for each in made.values())
            mark, vector = mapping.get("_meta", {}).get(_MARK), mapping.get("properties", {}).get("vector", {})
            dim = None if mark is None else int(vector["dims"])
            made = {} if mark is None else {"metric": mark["metric"], "search": mark["search"]}
        if dim is None:
            raise ValueError(f"{self.address}: the index {self._name!r} is not one of ours; choose another name")
        for what, ours in self._mark().items():
            if made[what] != ours:
                raise ValueError(
                    f"{self.address}: {self._name!r} was made with {what}={made[what]}, not {ours}: open it "
                    "that way, and clear() it to make it another way"
                )
        return dim

    def _mark(self) -> dict[str, str]:
        return {"metric": self.metric, "search": "approximate" if self.approximate else "exact"}

    def _pages(self):
        after = None

        def following():
            with self._translated():
                body = {"size": self.page, "sort": [{"id": "asc"}], "source": False, "track_total_hits": False}
                if after is not None:
                    body["search_after"] = [after]
                return np.array([hit["sort"][0] for hit in self._hits(**body)], np.int64)

        while len(page := self._ask(following)):
            yield page
            after = int(page[-1])

    def _hits(self, **body) -> list[dict]:
        return self._client.search(index=self._name, **body)["hits"]["hits"]

    def _create(self, dim):
        vector = {"type": "dense_vector", "dims": dim, "index": self.approximate}
        if self.approximate:
            vector |= {"similarity": SIMILARITIES[self.metric], "index_options": {"type": "hnsw"}}
        properties = {
            "id": {"type": "long"},
            "vector": vector,
            "name": {"type": "keyword"},
            "path": {"type": "keyword"},
            "label": {"type": "long"},
        }
        mappings = {"dynamic": "strict", "_meta": {_MARK: self._mark()}, "properties": properties}
        with self._translated():
            if not self._client.indices.exists(index=self._name):
                self._client.indices.create(index=self._name, mappings=mappings, settings=self._settings)

    def _drop(self):
        with self._translated():
            self._client.indices.delete(index=self._name, ignore_unavailable=True)

    def _check(self, vectors, ids):
        zero = ~vectors.any(axis=1)
        if self.metric == "cosine" and zero.any():
            raise ValueError(
                f"id {ids[zero][0]} has the zero vector ({zero.sum()} of {len(ids)} do): Elasticsearch has no cosine "
                "with it. Leave it out, or use metric=euclidean"
            )

    def _send(self, vectors, ids, payload):
        # "index" twice is "index" once, so that a part whose answer was lost can be sent again.
        operations = []
        for i, vector, each in zip(ids.tolist(), vectors.tolist(), payload, strict=True):
            operations.append({"index": {"_id": str(i)}})
            operations.append({"id": i, "vector": vector, "name": each.name, "path": each.path, "label": each.label})
        return self._bulk(operations, ids, "index")

    def _erase(self, ids):
        return self._bulk([{"delete": {"_id": str(i)}} for i in ids.tolist()], ids, "delete")

    def _bulk(self, operations: list[dict], ids: np.ndarray, kind: str) -> list[Rejected]:
        rejected = []
        with self._translated():
            items = self._client.bulk(index=self._name, operations=operations)["items"]
            if [int(item[kind]["_id"]) for item in items] != ids.tolist():
                raise ValueError(f"{len(items)} other items than the {len(ids)} that were sent")
            for row, item in enumerate(items):
                status = int(item[kind]["status"])
                if status < 300 or (kind == "delete" and status == 404):
                    continue
                reason = f"{status} {_reason(item[kind]) or 'without a reason'}"
                rejected.append(Rejected(row, reason, later=status in (429, 502, 503, 504)))
        return rejected

    def _written(self, count):
        # Without this, a search sees what was added only after a second.
        with self._translated():
            self._client.indices.refresh(index=self._name)

    def _present(self, ids):
        found = []
        with self._translated():
            for start in range(0, len(ids), 1000):
                asked = [str(i) for i in ids[start : start + 1000].tolist()]
                documents = self._client.mget(index=self._name, ids=asked, source=False)["docs"]
                found += [int(each["_id"]) for each in documents if each["found"]]
        return np.array(found, np.int64)

    def _fetch(self, ids):
        with self._translated():
            asked = [str(i) for i in ids.tolist()]
            found = self._client.mget(index=self._name, ids=asked, source_includes=["name", "path", "label"])["docs"]
            return {int(each["_id"]): Payload(**each["_source"]) for each in found if each["found"]}

    def _fetch_vectors(self, ids):
        with self._translated():
            asked = [str(i) for i in ids.tolist()]
            found = self._client.mget(index=self._name, ids=asked, source_includes=["vector"])["docs"]
            return {int(each["_id"]): each["_source"]["vector"] for each in found if each["found"]}

    def _search(self, queries, k, among=None):
        if k > self.most:
            raise ValueError(f"elasticsearch gives at most {self.most} answers to a query, {k} were asked for")
        ids = np.full((len(queries), k), PAD, np.int64)
        scores = np.full((len(queries), k), -np.inf)
        for row, query in enumerate(queries):
            if self.metric == "cosine" and not query.any():
                # Elasticsearch has no cosine with it; all answers are equal, so they stand by id.
                first = (self._ids if among is None else among.held[among.rows])[:k]
                ids[row, : len(first)], scores[row, : len(first)] = first, 0
                continue
            body = self._question(query, k, among)
            found, raw = self._ask(lambda body=body: self._results(body))
            ids[row, : len(found)] = found
            scores[row, : len(found)] = self._as_scores(raw)
        return best_first(ids, scores)

    def _question(self, query: np.ndarray, k: int, among: Selection | None) -> dict:
        condition = None if among is None else _condition(among)
        if self.approximate:
            knn = {"field": "vector", "query_vector": query.tolist(), "k": k}
            knn |= {"num_candidates": max(self._candidates, k)}
            body = {"knn": knn if condition is None else knn | {"filter": condition}}
        else:
            script = {"source": SCRIPTS[self.metric], "params": {"v": query.tolist()}}
            # Equal scores by id, so that it is the lowest ids that are among the first k.
            body = {
                "query": {"script_score": {"query": condition or {"match_all": {}}, "script": script}},
                "sort": [{"_score": "desc"}, {"id": "asc"}],
                "track_scores": True,
            }
        return body | {"size": k, "source": False, "track_total_hits": False}

    def _results(self, body: dict) -> tuple[np.ndarray, np.ndarray]:
        with self._translated():
            hits = self._hits(**body)
            found = np.array([int(hit["_id"]) for hit in hits], np.int64)
            return found, np.array([float(hit["_score"]) for hit in hits])

    def _as_scores(self, raw: np.ndarray) -> np.ndarray:
        """What Elasticsearch returned, as cosine similarity or distance negated.

        https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector#dense-vector-similarity
        """
        if self.metric == "cosine":
            return np.clip(2 * raw - 1 if self.approximate else raw - 1, -1, 1)
        distance = np.maximum(1 / raw - 1, 0)
        return 0.0 - (np.sqrt(distance) if self.approximate else distance)


def _condition(among: Selection) -> dict:
    """A filter as a query: https://www.elastic.co/docs/reference/query-languages/query-dsl/query-dsl-bool-query."""
    if among.allowed is None:
        return {"bool": {"must_not": [{"terms": {"id": among.excluded.ids.tolist()}}]}}
    return {"bool": {"filter": [{"terms": {"id": among.held[among.rows].tolist()}}]}}


def _reason(body) -> str:
    """Why, in words, from an answer or an item of a bulk answer."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return ": ".join(str(error[each]) for each in ("type", "reason") if error.get(each))
    return str(error or "")
