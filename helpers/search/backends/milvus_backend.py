"""Milvus as an index: embedded, in a folder of its own, or as a server or cluster."""

import _thread
import atexit
import contextlib
import functools
import logging
import math
import re
import threading
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np

from helpers import extras
from helpers.loopback import is_loopback
from helpers.search.backends.remote import (
    NAME_BYTES,
    PATH_BYTES,
    Payload,
    Rejected,
    RemoteIndex,
    ServerRefused,
    TemporaryFailure,
    key_for,
    parse_location,
)
from helpers.search.index import IndexFileError, check_count
from helpers.search.index.filters import Selection

with extras.importing("milvus"):
    import grpc
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import DataType, MilvusClient, MilvusException
    from pymilvus.exceptions import ErrorCode

#: Index type → Milvus's name, and the parameters that may be set: for building, for searching.
KINDS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "flat": ("FLAT", {}, {}),
    "hnsw": ("HNSW", {"m": "M", "ef_construction": "efConstruction"}, {"ef": "ef"}),
    "ivf": ("IVF_FLAT", {"nlist": "nlist"}, {"nprobe": "nprobe"}),
    "ivf_sq8": ("IVF_SQ8", {"nlist": "nlist"}, {"nprobe": "nprobe"}),
}
#: Milvus requires some of them; these are the values of its documentation.
DEFAULTS = {"m": 16, "ef_construction": 200, "ef": 64, "nlist": 128, "nprobe": 8}
METRICS = {"cosine": "COSINE", "euclidean": "L2"}

_FIELDS = {"id", "vector", "name", "path", "label"}
#: pymilvus.client.types.Status.CONNECT_FAILED, and the codes of gRPC after which a retry may succeed.
_CONNECT_FAILED = 2
_RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
#: Queries and results in one request.
_QUERIES, _RESULTS = 1000, 200_000

# They log the errors that they raise too. An application that needs the logs configures these loggers.
for _logger in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)
logging.getLogger("milvus_lite").addHandler(logging.NullHandler())

_at_exit = threading.Event()
# Reentrant, because an index may be collected, and release its file, while another is opened.
_opening = threading.RLock()
#: File → the number of indexes that have it open in this process, and the lock that serializes their requests.
_users: Counter[str] = Counter()
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class MilvusIndex(RemoteIndex):
    """Wang et al. 2021, Milvus: A Purpose-Built Vector Data Management System, https://milvus.io/docs.

    location : ``data/cache/gallery.db``, which Milvus Lite makes (a folder, for one process at a time), or
        ``//host:19530/collection`` of a server. The default collection is ``gallery``.
    metric : ``cosine`` (0 with the zero vector) or ``euclidean``.
    index : ``flat`` (exact, the default), ``hnsw``, ``ivf`` or ``ivf_sq8``.
    m, ef_construction, ef : for ``hnsw``: links, and candidates in building and in searching (at least k).
    nlist, nprobe : for ``ivf`` and ``ivf_sq8``: cells, and cells that a search reads. It may find fewer than k.
    shards, replicas : for a server: parts of a collection, and copies in memory.
    timeout : seconds for one request; 30 by default.
    tls : 1 for an encrypted connection.

    Milvus computes the scores in float32. It also chooses which of several equal vectors is the last result.
    Milvus Lite builds its index after a large addition; a server decides by itself. Requests to a file are serialized,
    so a search waits for at most one part of an addition.
    """

    scheme = "milvus"
    option_types = {
        "metric": str, "index": str, "m": int, "ef_construction": int, "ef": int, "nlist": int, "nprobe": int,
        "shards": int, "replicas": int, "timeout": float, "tls": int,
    }  # fmt: skip
    search_options = ("ef", "nprobe")
    remedy = "Start it with `docker compose up milvus` (compose.yaml), or use a file: milvus:data/cache/gallery.db"
    #: https://milvus.io/docs/limitations.md
    max_k = 16384
    number_bytes = 4
    #: Ids in one page.
    page = 10_000
    #: Additions of this size are flushed: without that, Milvus Lite builds no index for less than 128 MB.
    flush_from = 1000

    def __init__(self, location: str, **options: Any):
        super().__init__(location, **options)
        self._type, building, self._tunable = KINDS[self.options.get("index", "flat")]
        self._building = self._parameters(building)
        self._shards, self._replicas = (self.options.get(name, 1) for name in ("shards", "replicas"))
        self._turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._embedded = not location.startswith("//")
        if self._embedded:
            if Path(location).suffix != ".db":
                raise ValueError(
                    f"milvus:{location} is not a location: write milvus:folder/name.db or milvus://host:19530/name"
                )
            if self.options.keys() & {"shards", "replicas", "tls"}:
                raise ValueError("milvus: shards, replicas and tls are for a server, not for a file")
            self.address, self._name = str(location), "gallery"
            path = Path(location).absolute()
            # A search during a flush of Milvus Lite would not find the new vectors.
            self._turn = _locks[str(path)]
            self._open_file(path)
        else:
            self.address, self._name = parse_location("milvus", location, 19530, "gallery")
            if not re.fullmatch(r"[A-Za-z_]\w{0,254}", self._name, re.ASCII):
                raise ValueError(f"milvus: a collection's name has letters, digits and _, got {self._name!r}")
            uri = f"{'https' if self.options.get('tls') else 'http'}://{self.address}"
            on_loopback = is_loopback(self.address.rpartition(":")[0].strip("[]"))
            self._client = self._retry(lambda: self._connect(uri, on_loopback))
            self.close: Callable[[], object] = weakref.finalize(self, self._client.close)
            self.refresh()

    def _sibling_location(self, suffix: str) -> str:
        if not self._embedded:
            return super()._sibling_location(suffix)
        path = Path(self.location)
        return str(path.with_name(f"{path.stem}{suffix}{path.suffix}"))

    def _check_options(self, options: dict) -> None:
        index = options.get("index", "flat")
        if index not in KINDS:
            raise ValueError(f"milvus has no index {index!r}; it has: {', '.join(KINDS)}")
        _, building, tunable = KINDS[index]
        for name in DEFAULTS.keys() & options.keys():
            if name not in building | tunable:
                raise ValueError(f"milvus: {name} is not an option of index={index}")
        for name in options.keys() & {*DEFAULTS, "shards", "replicas"}:
            check_count(name, options[name])

    def _parameters(self, names: dict[str, str]) -> dict[str, int]:
        """Milvus's parameters, by their names here and there."""
        values = DEFAULTS | self.options
        return {theirs: values[ours] for ours, theirs in names.items()}

    def _open_file(self, path: Path) -> None:
        with _opening, _captured_log() as records:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file():
                    raise IndexFileError("it is a file, and Milvus Lite needs a folder there")
                # Closing releases the file for other processes; so does the end of this one.
                clients: list[MilvusClient] = []
                collected = weakref.finalize(self, _abandon, clients, str(path))
                self.close = partial(_close, collected)
                _watch_exit()
                _users[str(path)] += 1
                try:
                    self._client = self._connect(str(path), on_loopback=True)
                    clients.append(self._client)
                    self.refresh()
                except BaseException:
                    self.close()
                    raise
            except (OSError, TemporaryFailure) as error:
                causes = [str(record.exc_info[1]) for record in records if record.exc_info and record.exc_info[1]]
                reason = "; ".join(dict.fromkeys([str(error).rstrip("."), *causes]))
                raise IndexFileError(
                    f"{path} cannot be opened by Milvus Lite: {reason}. Close it in the other process, or "
                    "choose another name. If it is damaged, move it away and make the index again."
                ) from error
        lost = [record.getMessage() for record in records if record.levelno == logging.WARNING]
        if lost:
            warnings.warn(
                f"{path} was not closed or is damaged, and may have lost its latest changes; {len(self)} vectors are "
                f"there. Milvus Lite reports: {'; '.join(lost)}",
                stacklevel=5,
            )

    def _connect(self, uri: str, on_loopback: bool) -> MilvusClient:
        # gRPC would send requests to this computer through the proxy of the environment, which cannot reach it.
        options = {"grpc.enable_http_proxy": 0} if on_loopback else {}
        with _translated(self.address):
            return MilvusClient(uri, token=key_for(self.address) or "", timeout=self.timeout, grpc_options=options)

    def _call(self, method: str, *args: object, **kwargs: object) -> Any:
        with _translated(self.address), self._turn:
            return getattr(self._client, method)(self._name, *args, timeout=self.timeout, **kwargs)

    def _inspect(self) -> int | None:
        if not self._call("has_collection"):
            return None
        fields = {field["name"]: field for field in self._call("describe_collection")["fields"]}
        stored = self._call("describe_index", "vector") if "vector" in fields else None
        if not stored or fields.keys() != _FIELDS:
            raise ValueError(
                f"{self.address}: this library did not make the collection {self._name!r}; choose another name"
            )
        stored = {"metric": stored["metric_type"], "index": stored["index_type"]}
        self._check_made(stored, {"metric": METRICS[self.metric], "index": self._type})
        self._call("load_collection", replica_number=self._replicas)
        return int(fields["vector"]["params"]["dim"])

    def _pages(self) -> Iterator[np.ndarray]:
        pages = self._retry(lambda: self._call("query_iterator", batch_size=self.page, output_fields=["id"]))

        def next_page() -> list[dict]:
            with _translated(self.address), self._turn:
                return pages.next()

        while rows := self._retry(next_page):
            yield np.array([row["id"] for row in rows], np.int64)
        pages.close()

    def _create(self, dim: int) -> None:
        if self._call("has_collection"):
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("name", DataType.VARCHAR, max_length=NAME_BYTES)
        schema.add_field("path", DataType.VARCHAR, max_length=PATH_BYTES)
        schema.add_field("label", DataType.INT64)
        # Strong: a search finds everything that was added before it.
        self._call("create_collection", schema=schema, num_shards=self._shards, consistency_level="Strong")
        parameters = MilvusClient.prepare_index_params()
        parameters.add_index("vector", index_type=self._type, metric_type=METRICS[self.metric], params=self._building)
        if self._embedded and self._building:
            # pymilvus 3.0 sends them one by one, Milvus Lite 3.2 looks for them only below "params".
            parameters[0].get_index_configs()["params"] = self._building
        # The collection is empty, so there is nothing to wait for.
        self._call("create_index", parameters, sync=False)
        self._call("load_collection", replica_number=self._replicas)

    def _drop(self) -> None:
        self._call("drop_collection")

    def _send(self, vectors: np.ndarray, ids: np.ndarray, payload: list[Payload]) -> list[Rejected]:
        rows = [
            {"id": i, "vector": vector, "name": each.name, "path": each.path, "label": each.label}
            for i, vector, each in zip(ids.tolist(), vectors, payload, strict=True)
        ]
        # Not insert: pymilvus repeats a request whose response is lost, and would store an id twice.
        self._call("upsert", rows, retry_on_rate_limit=False)
        return []

    def _erase(self, ids: np.ndarray) -> list[Rejected]:
        self._call("delete", ids=ids.tolist(), retry_on_rate_limit=False)
        return []

    def _fetch(self, ids: np.ndarray, fields: Sequence[str]) -> dict[int, Mapping]:
        rows = self._call("query", filter=f"id in {ids.tolist()}", output_fields=["id", *fields])
        return {row["id"]: row for row in rows}

    def _flush(self, count: int) -> None:
        if self._embedded and count >= self.flush_from:
            self._call("flush")

    def _results(
        self, queries: np.ndarray, k: int, selection: Selection | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        parameters = self._parameters(self._tunable)
        if "ef" in parameters:
            # Milvus counts candidates that the filter drops, so that k of them need a proportionally longer list.
            part = 1.0 if selection is None else selection.count / len(self)
            parameters["ef"] = max(parameters["ef"], min(math.ceil(k / part), self.max_k))
        options = {"anns_field": "vector", "limit": k, "search_params": {"params": parameters}}
        options["filter"] = "" if selection is None else _condition(selection)
        step = max(1, min(_QUERIES, _RESULTS // k, self.chunk_bytes // (4 * queries.shape[1])))
        for start in range(0, len(queries), step):
            batch = list(queries[start : start + step])
            for hits in self._retry(partial(self._call, "search", batch, **options)):
                raw = np.array([hit["distance"] for hit in hits], np.float32)
                # Milvus returns squared distances: https://milvus.io/docs/metric.md
                scores = np.clip(raw, -1, 1) if self.metric == "cosine" else 0 - np.sqrt(np.maximum(raw, 0))
                yield np.array([hit["id"] for hit in hits], np.int64), scores


def _condition(selection: Selection) -> str:
    """A filter in Milvus's syntax, https://milvus.io/docs/boolean.md; Milvus Lite accepts no template for the ids."""
    if selection.allowed is None and selection.excluded is not None:
        return f"id not in {selection.excluded.ids.tolist()}"
    return f"id in {selection.ids.tolist()}"


def _close(collected: weakref.finalize) -> None:
    """Close a file, unless it is closed."""
    if detached := collected.detach():
        _, _, (clients, path), _ = detached
        _release(clients, path)


def _abandon(clients: list[MilvusClient], path: str) -> None:
    """Close the file of an index that was not closed.

    The garbage collector calls this at any moment, even while this thread holds a lock that Milvus Lite needs, such as
    that of the thread pools of `concurrent.futures`. So another thread closes the file, except at the end of Python.
    """
    if _at_exit.is_set():
        _release(clients, path)
    else:
        _thread.start_new_thread(_release, (clients, path))


@functools.cache
def _watch_exit() -> None:
    # Called after the first `weakref.finalize`, so this function is called before those that wait for the end.
    atexit.register(_at_exit.set)


def _release(clients: list[MilvusClient], path: str) -> None:
    with _opening:
        for client in clients:
            client.close()
        _users[path] -= 1
        if not _users[path]:
            server_manager_instance.release_server(path)


@contextlib.contextmanager
def _translated(address: str) -> Iterator[None]:
    """Translates Milvus's and gRPC's errors."""
    try:
        yield
    except grpc.RpcError as error:
        busy, retry = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error.code() in _RETRY
        raise _failure(address, error.details(), retry, uncertain=not busy) from error
    except MilvusException as error:
        # Earlier attempts of pymilvus may have reached the server even if the last one could not connect.
        busy = error.code == ErrorCode.RATE_LIMIT
        retry = busy or error.retriable or error.code in (_CONNECT_FAILED, *_RETRY)
        raise _failure(address, error.message, retry, uncertain=not busy) from error


def _failure(address: str, reason: str, retry: bool, uncertain: bool) -> Exception:
    return TemporaryFailure(reason, uncertain) if retry else ServerRefused(f"{address} refused: {reason}.")


@contextlib.contextmanager
def _captured_log() -> Iterator[list[logging.LogRecord]]:
    """Collects the warnings and errors of Milvus Lite, the only place where it says why it cannot open a file."""
    handler, logger = BufferingHandler(1_000_000), logging.getLogger("milvus_lite")
    handler.setLevel(logging.WARNING)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
