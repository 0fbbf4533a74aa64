"""Elasticsearch as an index: every vector scored by a script, or the approximate search of its graph."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import urllib3

from helpers import extras
from helpers.search.backends.remote import (
    Payload,
    Rejected,
    RemoteIndex,
    ServerRefused,
    TemporaryFailure,
    key_for,
    parse_location,
)
from helpers.search.index import check_count
from helpers.search.index.filters import Selection

with extras.importing("elasticsearch"):
    import elastic_transport
    from elasticsearch import ApiError, Elasticsearch, NotFoundError

#: Metric → similarity of the mapping, for ``search=approximate``.
SIMILARITIES = {"cosine": "cosine", "euclidean": "l2_norm"}
#: Metric → script, for ``search=exact``. Elasticsearch accepts no negative score.
#: https://www.elastic.co/docs/reference/query-languages/query-dsl/query-dsl-script-score-query#vector-functions
SCRIPTS = {"cosine": "cosineSimilarity(params.v, 'vector') + 1.0", "euclidean": "1 / (1 + l2norm(params.v, 'vector'))"}

#: The key in the mapping's ``_meta`` that marks an index of this library.
_MARK = "lookalike"
#: HTTP statuses after which a retry may succeed.
_RETRY = (429, 502, 503, 504)

# It logs the failures that it raises too. An application that needs the log configures this logger.
logging.getLogger("elastic_transport").addHandler(logging.NullHandler())


class ElasticIndex(RemoteIndex):
    """Elasticsearch's dense vectors, https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector.

    location : ``//host:9200/name``.
    metric : ``cosine`` or ``euclidean``. With cosine, the zero vector cannot be added: Elasticsearch rejects it, or
        fails in every later search (https://github.com/elastic/elasticsearch/pull/82241). As a query its scores are 0.
    search : ``exact`` (the default) runs a script over all vectors; ``approximate`` searches a graph (HNSW, of
        float32, not quantized) and may find fewer than k. It is fixed when the index is made.
    candidates : for ``approximate``, the candidates of each shard (at least k); 100 by default, at most 10,000.
    shards, replicas : parts of the index, and further copies of each; 1 and 0 by default.
    timeout : seconds for one request; 30 by default.
    tls : 1 for an encrypted connection; the system must trust the server's certificate.

    Scores are float32 of Elasticsearch, converted to cosines and negated distances. The error of a Euclidean distance
    ``d`` is about 1e-7 · (1 + d) with ``exact``; with ``approximate``, which returns 1 / (1 + d²), the error of small
    distances is up to 3e-4.
    """

    scheme = "elasticsearch"
    option_types = {
        "metric": str, "search": str, "candidates": int, "shards": int, "replicas": int, "timeout": float, "tls": int,
    }  # fmt: skip
    search_options = ("candidates",)
    remedy = "Start it with `docker compose up elasticsearch` (compose.yaml), or give a longer timeout"
    #: ``index.max_result_window``, and the limit of ``num_candidates``.
    max_k = 10_000
    number_bytes = 25
    #: Ids in one page.
    page = 10_000

    def __init__(self, location: str, **options: Any):
        super().__init__(location, **options)
        self.approximate = self.options.get("search") == "approximate"
        self.address, self._name = parse_location("elasticsearch", location, 9200)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,200}", self._name):
            raise ValueError(
                f"elasticsearch: an index's name has lower-case letters, digits, _ - ., got {self._name!r}"
            )
        self._client = Elasticsearch(
            f"{'https' if self.options.get('tls') else 'http'}://{self.address}",
            api_key=key_for(self.address),
            request_timeout=self.timeout,
            max_retries=0,
        )
        self.refresh()

    def _check_options(self, options: dict) -> None:
        search, candidates, replicas = (
            options.get("search", "exact"),
            options.get("candidates"),
            options.get("replicas", 0),
        )
        if search not in ("exact", "approximate"):
            raise ValueError(f"elasticsearch: search must be exact or approximate, got {search!r}")
        if candidates is not None and (search == "exact" or check_count("candidates", candidates) > self.max_k):
            raise ValueError(
                f"elasticsearch: candidates are for search=approximate, from 1 to {self.max_k}; got {candidates}"
            )
        if replicas < 0:
            raise ValueError(f"elasticsearch: replicas must not be negative, got {replicas}")
        check_count("shards", options.get("shards", 1))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translates the client's errors."""
        try:
            yield
        except elastic_transport.ConnectionTimeout as error:
            raise TemporaryFailure(f"no response within {self.timeout:g} s", uncertain=True) from error
        except elastic_transport.TlsError as error:
            raise ServerRefused(f"{self.address}: no encrypted connection: {error}.") from error
        except elastic_transport.ConnectionError as error:
            refused = any(isinstance(each, urllib3.exceptions.NewConnectionError) for each in error.errors)
            raise TemporaryFailure(str(error.message), uncertain=not refused) from error
        except elastic_transport.TransportError as error:
            raise self._invalid(error) from error
        except ApiError as error:
            # Other servers send no reason.
            status, reason = error.meta.status, _reason(error.body) or str(error)
            if status in _RETRY:
                raise TemporaryFailure(f"{status} {reason}", uncertain=status != 429) from error
            raise ServerRefused(f"{self.address} refused: {status} {reason}.", uncertain=status >= 500) from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._invalid(error) from error

    def _invalid(self, error: Exception) -> ServerRefused:
        what = f"{type(error).__name__}: {error}"
        return ServerRefused(
            f"{self.address} does not respond like Elasticsearch ({what[:200]}). Is that its address?", uncertain=True
        )

    def _inspect(self) -> int | None:
        with self._translated():
            try:
                indexes = self._client.indices.get_mapping(index=self._name).body
            except NotFoundError as error:
                # The client checks the header that identifies Elasticsearch only in a response without an error.
                if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
                    raise self._invalid(error) from error
                return None
            (mapping,) = (each["mappings"] for each in indexes.values())
            mark, vector = mapping.get("_meta", {}).get(_MARK), mapping.get("properties", {}).get("vector", {})
            dim = None if mark is None else int(vector["dims"])
            stored = {} if mark is None else {"metric": mark["metric"], "search": mark["search"]}
        if dim is None:
            raise ValueError(f"{self.address}: this library did not make the index {self._name!r}; choose another name")
        self._check_made(stored, self._mark())
        return dim

    def _mark(self) -> dict[str, str]:
        return {"metric": self.metric, "search": "approximate" if self.approximate else "exact"}

    def _pages(self) -> Iterator[np.ndarray]:
        body: dict[str, Any] = {"size": self.page, "sort": [{"id": "asc"}], "source": False, "track_total_hits": False}

        def next_page() -> np.ndarray:
            with self._translated():
                return np.array([hit["sort"][0] for hit in self._hits(**body)], np.int64)

        while len(page := self._retry(next_page)):
            yield page
            body["search_after"] = [int(page[-1])]

    def _hits(self, **body: Any) -> list[dict]:
        return self._client.search(index=self._name, **body)["hits"]["hits"]

    def _create(self, dim: int) -> None:
        vector: dict[str, Any] = {"type": "dense_vector", "dims": dim, "index": self.approximate}
        if self.approximate:
            vector |= {"similarity": SIMILARITIES[self.metric], "index_options": {"type": "hnsw"}}
        keyword, number = {"type": "keyword"}, {"type": "long"}
        properties = {"id": number, "vector": vector, "name": keyword, "path": keyword, "label": number}
        mappings = {"dynamic": "strict", "_meta": {_MARK: self._mark()}, "properties": properties}
        settings = {
            "number_of_shards": self.options.get("shards", 1),
            "number_of_replicas": self.options.get("replicas", 0),
        }
        with self._translated():
            if not self._client.indices.exists(index=self._name):
                self._client.indices.create(index=self._name, mappings=mappings, settings=settings)

    def _drop(self) -> None:
        with self._translated():
            self._client.indices.delete(index=self._name, ignore_unavailable=True)

    def _check(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        zero = ~vectors.any(axis=1)
        if self.metric == "cosine" and zero.any():
            raise ValueError(
                f"id {ids[zero][0]} has the zero vector ({zero.sum()} of {len(ids)} do): Elasticsearch has no cosine "
                "for it. Omit it, or use metric=euclidean"
            )

    def _send(self, vectors: np.ndarray, ids: np.ndarray, payload: list[Payload]) -> list[Rejected]:
        # "index" is idempotent, so a part whose response was lost can be sent again.
        operations: list[dict] = []
        for i, vector, each in zip(ids.tolist(), vectors.tolist(), payload, strict=True):
            operations.append({"index": {"_id": str(i)}})
            operations.append({"id": i, "vector": vector, "name": each.name, "path": each.path, "label": each.label})
        return self._bulk(operations, ids, "index")

    def _erase(self, ids: np.ndarray) -> list[Rejected]:
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
                rejected.append(Rejected(row, reason, status in _RETRY))
        return rejected

    def _flush(self, count: int) -> None:
        # Without a refresh, searches find new vectors only after a second.
        with self._translated():
            self._client.indices.refresh(index=self._name)

    def _fetch(self, ids: np.ndarray, fields: Sequence[str]) -> dict[int, Mapping]:
        source: dict[str, Any] = {"source_includes": list(fields)} if fields else {"source": False}
        with self._translated():
            found = self._client.mget(index=self._name, ids=[str(i) for i in ids.tolist()], **source)["docs"]
            return {
                int(each["_id"]): {name: each["_source"][name] for name in fields} for each in found if each["found"]
            }

    def _results(
        self, queries: np.ndarray, k: int, selection: Selection | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for query in queries:
            if self.metric == "cosine" and not query.any():
                # Elasticsearch has no cosine for it. All scores are equal, so the order is that of the ids.
                first = (self._ids if selection is None else selection.ids)[:k]
                yield first, np.zeros(len(first))
            else:
                found, raw = self._retry(partial(self._found, self._body(query, k, selection)))
                yield found, self._as_scores(raw)

    def _body(self, query: np.ndarray, k: int, selection: Selection | None) -> dict[str, Any]:
        condition = None if selection is None else _condition(selection)
        body: dict[str, Any] = {"size": k, "source": False, "track_total_hits": False}
        if self.approximate:
            knn = {"field": "vector", "query_vector": query.tolist(), "k": k}
            knn |= {"num_candidates": max(self.options.get("candidates", 100), k)}
            return body | {"knn": knn if condition is None else knn | {"filter": condition}}
        script = {"source": SCRIPTS[self.metric], "params": {"v": query.tolist()}}
        # Equal scores are sorted by id, so that the first k hold the lowest ids.
        return body | {
            "query": {"script_score": {"query": condition or {"match_all": {}}, "script": script}},
            "sort": [{"_score": "desc"}, {"id": "asc"}],
            "track_scores": True,
        }

    def _found(self, body: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        with self._translated():
            hits = self._hits(**body)
            found = np.array([int(hit["_id"]) for hit in hits], np.int64)
            return found, np.array([float(hit["_score"]) for hit in hits])

    def _as_scores(self, raw: np.ndarray) -> np.ndarray:
        """Elasticsearch's scores as cosine similarity or negated distance.

        https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector#dense-vector-similarity
        """
        if self.metric == "cosine":
            return np.clip(2 * raw - 1 if self.approximate else raw - 1, -1, 1)
        distance = np.maximum(1 / raw - 1, 0)
        return 0.0 - (np.sqrt(distance) if self.approximate else distance)


def _condition(selection: Selection) -> dict:
    """A filter as a query: https://www.elastic.co/docs/reference/query-languages/query-dsl/query-dsl-bool-query."""
    if selection.allowed is None and selection.excluded is not None:
        return {"bool": {"must_not": [{"terms": {"id": selection.excluded.ids.tolist()}}]}}
    return {"bool": {"filter": [{"terms": {"id": selection.ids.tolist()}}]}}


def _reason(body: object) -> str:
    """The reason in a response or in an item of a bulk response."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return ": ".join(str(error[each]) for each in ("type", "reason") if error.get(each))
    return str(error or "")
