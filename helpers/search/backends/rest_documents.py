"""What the indexes in Elasticsearch and in OpenSearch have in common: documents, bulk requests and filters."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from helpers.search.backends.remote import (
    Payload,
    Rejected,
    RemoteIndex,
    ServerRefused,
    TemporaryFailure,
    parse_location,
)
from helpers.search.index import check_count
from helpers.search.index.filters import Selection

#: The key in the mapping's ``_meta`` that marks an index of this library.
_MARK = "lookalike"
#: HTTP statuses after which a retry may succeed.
_RETRY = (429, 502, 503, 504)


class DocumentIndex(RemoteIndex):
    """An index in which each vector is a field of a document, on a server with the REST API of Elasticsearch.

    OpenSearch, which began as a copy of Elasticsearch 7.10, has the same API for documents and filters. A backend sets
    the class attributes and implements the abstract methods, which say what differs: the client with its errors, the
    mapping of the vector, and the queries.

    location : ``//host:9200/name``.
    metric : ``cosine`` or ``euclidean``. With cosine, the zero vector cannot be added. As a query its scores are 0.
    search : ``exact`` (the default) runs a script over all vectors; ``approximate`` searches a graph (HNSW, of
        float32, not quantized) and may find fewer than k. It is fixed when the index is made.
    candidates : for ``approximate``, the candidates of each shard (at least k); 100 by default, at most 10,000.
    shards, replicas : parts of the index, and further copies of each; 1 and 0 by default.
    timeout : seconds for one request; 30 by default.
    tls : 1 for an encrypted connection; the system must trust the server's certificate.

    Scores are float32 of the server, converted to cosines and negated distances. The error of a Euclidean distance
    ``d`` is about 1e-7 · (1 + d) with ``exact``; with ``approximate``, which returns 1 / (1 + d²), the error of small
    distances is up to 3e-4.
    """

    option_types: ClassVar = {
        "metric": str, "search": str, "candidates": int, "shards": int, "replicas": int, "timeout": float, "tls": int,
    }  # fmt: skip
    search_options = ("candidates",)
    #: ``index.max_result_window``, and the limit of the candidates.
    max_k = 10_000
    number_bytes = 25
    #: Ids in one page.
    page = 10_000
    #: The server's name in messages.
    product: ClassVar[str]
    #: Metric → script of the exact search: 1 + cosine, or 1 / (1 + distance).
    scripts: ClassVar[Mapping[str, str]]
    #: The key of the vector's length in the mapping.
    dim_key: ClassVar[str]
    _client: Any

    def __init__(self, location: str, **options: Any):
        super().__init__(location, **options)
        self.approximate = self.options.get("search") == "approximate"
        self.address, self._name = parse_location(self.scheme, location, 9200)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,200}", self._name):
            raise ValueError(
                f"{self.scheme}: an index's name has lower-case letters, digits, _ - ., got {self._name!r}"
            )
        self._url = f"{'https' if self.options.get('tls') else 'http'}://{self.address}"
        self._client = self._connect()
        self.refresh()

    def _check_options(self, options: dict) -> None:
        search, candidates = options.get("search", "exact"), options.get("candidates")
        if search not in ("exact", "approximate"):
            raise ValueError(f"{self.scheme}: search must be exact or approximate, got {search!r}")
        if candidates is not None and (search == "exact" or check_count("candidates", candidates) > self.max_k):
            raise ValueError(
                f"{self.scheme}: candidates are for search=approximate, from 1 to {self.max_k}; got {candidates}"
            )
        if (replicas := options.get("replicas", 0)) < 0:
            raise ValueError(f"{self.scheme}: replicas must not be negative, got {replicas}")
        check_count("shards", options.get("shards", 1))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # ---- implemented by a backend ----------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """The client, which connects at the first request."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """A block in which errors of the client become `TemporaryFailure` or `ServerRefused`."""

    @abstractmethod
    def _mapping(self) -> dict | None:
        """The mapping of the index, or None if there is no index of this name."""

    @abstractmethod
    def _vector_field(self, dim: int) -> dict[str, Any]:
        """The mapping of the vector."""

    @abstractmethod
    def _approximate_query(self, query: np.ndarray, k: int, condition: dict | None) -> dict[str, Any]:
        """The part of a request that searches the graph, among the documents that meet a condition."""

    def _settings(self) -> dict[str, Any]:
        """The settings of a new index."""
        return {
            "number_of_shards": self.options.get("shards", 1),
            "number_of_replicas": self.options.get("replicas", 0),
        }

    # ---- errors ----------------------------------------------------------------------------------------------------

    def _failure(self, status: int, reason: str) -> TemporaryFailure | ServerRefused:
        """The error for an HTTP status."""
        if status in _RETRY:
            return TemporaryFailure(f"{status} {reason}", uncertain=status != 429)
        return ServerRefused(f"{self.address} refused: {status} {reason}.", uncertain=status >= 500)

    def _invalid(self, error: object) -> ServerRefused:
        what = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        return ServerRefused(
            f"{self.address} does not respond like {self.product} ({what[:200]}). Is that its address?", uncertain=True
        )

    # ---- the index -------------------------------------------------------------------------------------------------

    def _inspect(self) -> int | None:
        with self._translated():
            mapping = self._mapping()
            if mapping is None:
                return None
            mark, vector = mapping.get("_meta", {}).get(_MARK), mapping.get("properties", {}).get("vector", {})
            dim = None if mark is None else int(vector[self.dim_key])
            stored = {} if mark is None else {"metric": mark["metric"], "search": mark["search"]}
        if dim is None:
            raise ValueError(f"{self.address}: this library did not make the index {self._name!r}; choose another name")
        self._check_made(stored, self._mark())
        return dim

    def _mark(self) -> dict[str, str]:
        return {"metric": self.metric, "search": "approximate" if self.approximate else "exact"}

    def _pages(self) -> Iterator[np.ndarray]:
        body: dict[str, Any] = {"size": self.page, "sort": [{"id": "asc"}], "_source": False, "track_total_hits": False}

        def next_page() -> np.ndarray:
            with self._translated():
                return np.array([hit["sort"][0] for hit in self._hits(body)], np.int64)

        while len(page := self._retry(next_page)):
            yield page
            body["search_after"] = [int(page[-1])]

    def _hits(self, body: dict[str, Any]) -> list[dict]:
        return self._client.search(index=self._name, body=body)["hits"]["hits"]

    def _create(self, dim: int) -> None:
        keyword, number = {"type": "keyword"}, {"type": "long"}
        vector = self._vector_field(dim)
        properties = {"id": number, "vector": vector, "name": keyword, "path": keyword, "label": number}
        mappings = {"dynamic": "strict", "_meta": {_MARK: self._mark()}, "properties": properties}
        try:
            with self._translated():
                body = {"mappings": mappings, "settings": self._settings()}
                self._client.indices.create(index=self._name, body=body)
        except ServerRefused:
            with self._translated():
                # Another process may have made it meanwhile.
                if not self._client.indices.exists(index=self._name):
                    raise

    def _drop(self) -> None:
        with self._translated():
            self._client.indices.delete(index=self._name, ignore_unavailable=True)

    # ---- changes ---------------------------------------------------------------------------------------------------

    def _check(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        zero = ~vectors.any(axis=1)
        if self.metric == "cosine" and zero.any():
            raise ValueError(
                f"id {ids[zero][0]} has the zero vector ({zero.sum()} of {len(ids)} do): {self.product} has no cosine "
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
            items = self._client.bulk(index=self._name, body=operations)["items"]
            if [int(item[kind]["_id"]) for item in items] != ids.tolist():
                raise ValueError(f"the {len(items)} items of the response are not the {len(ids)} that were sent")
            for row, item in enumerate(items):
                status = int(item[kind]["status"])
                if status < 300 or (kind == "delete" and status == 404):
                    continue
                reason = f"{status} {read_reason(item[kind]) or 'without a reason'}"
                rejected.append(Rejected(row, reason, status in _RETRY))
        return rejected

    def _flush(self, count: int) -> None:
        # Without a refresh, searches find new vectors only after a second.
        with self._translated():
            self._client.indices.refresh(index=self._name)

    # ---- requests --------------------------------------------------------------------------------------------------

    def _fetch(self, ids: np.ndarray, fields: Sequence[str]) -> dict[int, Mapping]:
        source = list(fields) or False
        with self._translated():
            documents = [{"_id": str(i), "_source": source} for i in ids.tolist()]
            found = self._client.mget(index=self._name, body={"docs": documents})["docs"]
            return {
                int(each["_id"]): {name: each["_source"][name] for name in fields} for each in found if each["found"]
            }

    def _results(
        self, queries: np.ndarray, k: int, selection: Selection | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for query in queries:
            if self.metric == "cosine" and not query.any():
                # The server has no cosine for it. All scores are equal, so the order is that of the ids.
                first = (self._ids if selection is None else selection.ids)[:k]
                yield first, np.zeros(len(first))
            else:
                found, raw = self._retry(partial(self._found, self._body(query, k, selection)))
                yield found, self._as_scores(raw)

    def _body(self, query: np.ndarray, k: int, selection: Selection | None) -> dict[str, Any]:
        condition = None if selection is None else _condition(selection)
        body: dict[str, Any] = {"size": k, "_source": False, "track_total_hits": False}
        if self.approximate:
            return body | self._approximate_query(query, k, condition)
        # Equal scores are sorted by id, so that the first k hold the lowest ids.
        order = {"sort": [{"_score": "desc"}, {"id": "asc"}], "track_scores": True}
        script = {"source": self.scripts[self.metric], "params": {"v": query.tolist()}}
        return body | order | {"query": {"script_score": {"query": condition or {"match_all": {}}, "script": script}}}

    def _found(self, body: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        with self._translated():
            hits = self._hits(body)
            found = np.array([int(hit["_id"]) for hit in hits], np.int64)
            return found, np.array([float(hit["_score"]) for hit in hits])

    def _as_scores(self, raw: np.ndarray) -> np.ndarray:
        """The server's scores as cosine similarity or negated distance.

        The approximate search returns (1 + cosine) / 2 and 1 / (1 + d²); the scripts return 1 + cosine and 1 / (1 + d).
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


def read_reason(body: object) -> str:
    """The reason in a response or in an item of a bulk response; empty if it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        # If all shards fail, only the first cause says why.
        error = (error.get("root_cause") or [error])[0]
        return ": ".join(str(error[each]) for each in ("type", "reason") if error.get(each))
    return str(error or "")
