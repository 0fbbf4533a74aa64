"""Milvus as an index: embedded, in a folder of its own, or as a server or cluster; the same code for both."""

import contextlib
import logging
import re
import threading
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.search.backends.remote import (
    NAME_BYTES,
    PATH_BYTES,
    Payload,
    RemoteIndex,
    ServerRefused,
    TryAgain,
    key_for,
    parse_place,
)
from helpers.search.index import IndexFileError, check_count
from helpers.search.index.filters import Selection
from helpers.search.ranking import PAD, best_first

with extras.importing("milvus"):
    import grpc
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import DataType, MilvusClient, MilvusException
    from pymilvus.exceptions import ErrorCode

#: Ours → Milvus's name, and its parameters that may be set: when building, when searching.
KINDS = {
    "flat": ("FLAT", {}, {}),
    "hnsw": ("HNSW", {"m": "M", "ef_construction": "efConstruction"}, {"ef": "ef"}),
    "ivf": ("IVF_FLAT", {"nlist": "nlist"}, {"nprobe": "nprobe"}),
    "ivf_sq8": ("IVF_SQ8", {"nlist": "nlist"}, {"nprobe": "nprobe"}),
}
#: Milvus wants some of them given; these are its documentation's.
DEFAULTS = {"m": 16, "ef_construction": 200, "ef": 64, "nlist": 128, "nprobe": 8}
METRICS = {"cosine": "COSINE", "euclidean": "L2"}

_FIELDS = {"id", "vector", "name", "path", "label"}
#: pymilvus.client.types.Status.CONNECT_FAILED, and the codes of gRPC after which one may ask again.
_CONNECT_FAILED = 2
_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
#: Queries and answers in one request.
_QUERIES, _RESULTS = 1000, 200_000

# Both print what they raise as well. An application that wants to see it configures these loggers.
for _logger in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)
logging.getLogger("milvus_lite").addHandler(logging.NullHandler())

# Reentrant, since an index may be collected, and let go of its file, while another is opened.
_opening = threading.RLock()
#: Files that are open in this process → by how many indexes, and whose turn it is.
_users: Counter[str] = Counter()
_turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class MilvusIndex(RemoteIndex):
    """Wang et al. 2021, Milvus: A Purpose-Built Vector Data Management System, https://milvus.io/docs.

    place : ``data/cache/gallery.db``, which Milvus Lite makes (a folder, for one process at a time), or
        ``//host:19530/collection`` of a server. The collection is ``gallery`` if it is left out.
    metric : ``cosine`` (0 with the zero vector) or ``euclidean``.
    index : ``flat`` (exact, the default), ``hnsw``, ``ivf`` or ``ivf_sq8``.
    m, ef_construction, ef : of ``hnsw``: links, and breadth of building and of searching (at least k).
    nlist, nprobe : of ``ivf`` and ``ivf_sq8``: cells, and how many of them a search looks into. It may then find
        fewer than k.
    shards, replicas : of a server: parts a collection is split into, and copies in memory.
    timeout : seconds that one request may take, 30 if left out.
    tls : whether the server is talked to encrypted.

    Scores are float32 of Milvus. Which of several equal vectors it keeps at the last place is its own choice.
    A large add is written out in Milvus Lite, which then builds its index; a server decides by itself. Requests to
    a file take turns, so that a search waits for one part of an add at most.
    """

    scheme = "milvus"
    option_types = {
        "metric": str,
        "index": str,
        "m": int,
        "ef_construction": int,
        "ef": int,
        "nlist": int,
        "nprobe": int,
        "shards": int,
        "replicas": int,
        "timeout": float,
        "tls": int,
    }
    search_options = ("ef", "nprobe")
    remedy = "Start it with `docker compose up milvus` (compose.yaml), or use a file: milvus:data/cache/gallery.db"
    #: https://milvus.io/docs/limitations.md
    most = 16384
    number_bytes = 4
    #: Of ids in one page.
    page = 10_000
    #: Milvus Lite builds no index before 128 MB have come, or a flush.
    flush_from = 1000

    def __init__(
        self,
        place: str,
        metric: str | None = None,
        index: str | None = None,
        shards: int | None = None,
        replicas: int | None = None,
        timeout: float | None = None,
        tls: int | None = None,
        **parameters: int,
    ):
        super().__init__(place, metric, timeout, index=index, shards=shards, replicas=replicas, tls=tls, **parameters)
        self.index = index or "flat"
        if self.index not in KINDS:
            raise ValueError(f"milvus has no index {index!r}; it has: {', '.join(KINDS)}")
        self._type = KINDS[self.index][0]
        self._building, self._searching = self._parameters(self.options)
        self._shards, self._replicas = (check_count(name, self.options.get(name, 1)) for name in ("shards", "replicas"))
        if place.startswith("//"):
            self.path, self._turn = None, contextlib.nullcontext()
            self.address, self._name = parse_place("milvus", place, 19530, "gallery")
            if not re.fullmatch(r"[A-Za-z_]\w{0,254}", self._name, re.ASCII):
                raise ValueError(f"milvus: a collection's name has letters, digits and _, got {self._name!r}")
            uri = f"{'https' if tls else 'http'}://{self.address}"
            self._client = self._ask(lambda: self._connect(uri))
            self.close = weakref.finalize(self, self._client.close)
            self.refresh()
        else:
            if Path(place).suffix != ".db":
                raise ValueError(f"milvus:{place} is no place: write milvus:folder/name.db or milvus://host:19530/name")
            if shards or replicas or tls:
                raise ValueError("milvus: shards, replicas and tls are of a server, not of a file")
            self.path, self.address, self._name = Path(place).absolute(), str(place), "gallery"
            # While Milvus Lite writes out what was added, a search finds nothing of it.
            self._turn = _turns[str(self.path)]
            self._open_file()

    def _parameters(self, options: dict) -> tuple[dict[str, int], dict[str, int]]:
        """What Milvus is given when building and when searching."""
        _, *both = KINDS[self.index]
        for name in DEFAULTS.keys() & options.keys():
            if not any(name in each for each in both):
                raise ValueError(f"milvus: {name} is no option of index={self.index}")
            check_count(name, options[name])
        return tuple({theirs: (DEFAULTS | options)[ours] for ours, theirs in each.items()} for each in both)

    def _tune(self, options):
        _, self._searching = self._parameters(options)
        super()._tune(options)

    def _open_file(self) -> None:
        with _opening, _heard() as said:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.is_file():
                    raise IndexFileError("it is a file, and Milvus Lite keeps a folder there")
                # Let go of the file, so that another process may open it; the end of this one does so as well.
                clients: list[MilvusClient] = []
                self.close = weakref.finalize(self, _let_go, clients, str(self.path))
                _users[str(self.path)] += 1
                try:
                    self._client = self._connect(str(self.path))
                    clients.append(self._client)
                    self.refresh()
                except BaseException:
                    self.close()
                    raise
            except (OSError, TryAgain) as error:
                reason = "; ".join(dict.fromkeys([str(error).rstrip("."), *_causes(said)]))
                raise IndexFileError(
                    f"{self.path} can't be opened by Milvus Lite: {reason}. Close it in the other process, choose "
                    "another name, or delete it and make the index again."
                ) from error
        lost = [record.getMessage() for record in said if record.levelno == logging.WARNING]
        if lost:
            warnings.warn(
                f"{self.path} was not closed or is damaged, and may have lost what came last; {len(self)} vectors are "
                f"there. Milvus Lite says: {'; '.join(lost)}",
                stacklevel=5,
            )

    def _connect(self, uri: str) -> MilvusClient:
        with _translated(self.address):
            return MilvusClient(uri, token=key_for(self.address) or "", timeout=self.timeout)

    def _call(self, method: str, *args, **kwargs):
        with _translated(self.address), self._turn:
            return getattr(self._client, method)(self._name, *args, timeout=self.timeout, **kwargs)

    def _inspect(self):
        if not self._call("has_collection"):
            return None
        fields = {field["name"]: field for field in self._call("describe_collection")["fields"]}
        made = self._call("describe_index", "vector") if "vector" in fields else None
        if not made or fields.keys() != _FIELDS:
            raise ValueError(f"{self.address}: the collection {self._name!r} is not one of ours; choose another name")
        for what, ours, theirs in (
            ("metric", METRICS[self.metric], made["metric_type"]),
            ("index", self._type, made["index_type"]),
        ):
            if ours != theirs:
                raise ValueError(
                    f"{self.address}: {self._name!r} was made with {what} {theirs}, not {ours}: "
                    "open it that way, and clear() it to make it another way"
                )
        self._call("load_collection", replica_number=self._replicas)
        return int(fields["vector"]["params"]["dim"])

    def _pages(self):
        pages = self._ask(lambda: self._call("query_iterator", batch_size=self.page, output_fields=["id"]))

        def following():
            with _translated(self.address), self._turn:
                return pages.next()

        while rows := self._ask(following):
            yield np.array([row["id"] for row in rows], np.int64)
        pages.close()

    def _create(self, dim):
        if self._call("has_collection"):
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("name", DataType.VARCHAR, max_length=NAME_BYTES)
        schema.add_field("path", DataType.VARCHAR, max_length=PATH_BYTES)
        schema.add_field("label", DataType.INT64)
        # Strong: a search sees all that was added before it.
        self._call("create_collection", schema=schema, num_shards=self._shards, consistency_level="Strong")
        parameters = MilvusClient.prepare_index_params()
        parameters.add_index("vector", index_type=self._type, metric_type=METRICS[self.metric], params=self._building)
        if self.path is not None and self._building:
            # pymilvus 3.0 sends them one by one, Milvus Lite 3.2 looks for them only below "params".
            parameters[0].get_index_configs()["params"] = self._building
        # Nothing is in yet that there would be to wait for.
        self._call("create_index", parameters, sync=False)
        self._call("load_collection", replica_number=self._replicas)

    def _drop(self):
        self._call("drop_collection")

    def _send(self, vectors, ids, payload):
        rows = [
            {"id": i, "vector": vector, "name": each.name, "path": each.path, "label": each.label}
            for i, vector, each in zip(ids.tolist(), vectors, payload, strict=True)
        ]
        # Not insert: pymilvus repeats a request by itself when the answer is lost, and an id would be there twice.
        self._call("upsert", rows, retry_on_rate_limit=False)
        return []

    def _erase(self, ids):
        self._call("delete", ids=ids.tolist(), retry_on_rate_limit=False)
        return []

    def _present(self, ids):
        found = []
        for start in range(0, len(ids), 1000):
            asked = f"id in {ids[start : start + 1000].tolist()}"
            found += [row["id"] for row in self._call("query", filter=asked, output_fields=["id"])]
        return np.array(found, np.int64)

    def _fetch(self, ids):
        rows = self._call("query", filter=f"id in {ids.tolist()}", output_fields=["id", "name", "path", "label"])
        return {row["id"]: Payload(row["name"], row["path"], row["label"]) for row in rows}

    def _fetch_vectors(self, ids):
        rows = self._call("query", filter=f"id in {ids.tolist()}", output_fields=["id", "vector"])
        return {row["id"]: row["vector"] for row in rows}

    def _written(self, count):
        if self.path is not None and count >= self.flush_from:
            self._call("flush")

    def _search(self, queries, k, among=None):
        if k > self.most:
            raise ValueError(f"milvus gives at most {self.most} answers to a query, {k} were asked for")
        parameters = dict(self._searching)
        if "ef" in parameters:
            parameters["ef"] = max(parameters["ef"], k)
        ids = np.full((len(queries), k), PAD, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        condition = "" if among is None else _condition(among)
        step = max(1, min(_QUERIES, _RESULTS // k, self.chunk_bytes // (4 * queries.shape[1])))
        for start in range(0, len(queries), step):
            asked = list(queries[start : start + step])
            found = self._ask(
                lambda asked=asked: self._call(
                    "search",
                    asked,
                    anns_field="vector",
                    limit=k,
                    search_params={"params": parameters},
                    filter=condition,
                )
            )
            for row, hits in enumerate(found, start):
                ids[row, : len(hits)] = [hit["id"] for hit in hits]
                scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        answered = ids != PAD
        if self.metric == "cosine":
            scores[answered] = np.clip(scores[answered], -1, 1)
        else:
            # Milvus leaves the root out: https://milvus.io/docs/metric.md
            scores[answered] = 0 - np.sqrt(np.maximum(scores[answered], 0))
        return best_first(ids, scores)


def _condition(among: Selection) -> str:
    """A filter as Milvus writes it, https://milvus.io/docs/boolean.md; Milvus Lite takes no template for the ids."""
    if among.allowed is None:
        return f"id not in {among.excluded.ids.tolist()}"
    return f"id in {among.held[among.rows].tolist()}"


def _let_go(clients: list[MilvusClient], path: str) -> None:
    with _opening:
        for client in clients:
            client.close()
        _users[path] -= 1
        if not _users[path]:
            server_manager_instance.release_server(path)


@contextlib.contextmanager
def _translated(address: str) -> Iterator[None]:
    """Milvus's and gRPC's errors as those of this house."""
    try:
        yield
    except grpc.RpcError as error:
        later = error.code() in _LATER
        raise _as_ours(address, error.details(), later, error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED) from error
    except MilvusException as error:
        # That it can't connect says nothing of its attempts before: pymilvus makes several by itself.
        busy = error.code == ErrorCode.RATE_LIMIT
        later = busy or error.retriable or error.code in (_CONNECT_FAILED, *_LATER)
        raise _as_ours(address, error.message, later, not busy) from error


def _as_ours(address: str, reason: str, later: bool, doubtful: bool) -> Exception:
    if later:
        return TryAgain(reason, doubtful)
    return ServerRefused(f"{address} refused: {reason}.")


@contextlib.contextmanager
def _heard() -> Iterator[list[logging.LogRecord]]:
    """What Milvus Lite logs meanwhile, from warnings on: it tells why it can't open a file nowhere else."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("milvus_lite")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _causes(records: list[logging.LogRecord]) -> list[str]:
    return [str(record.exc_info[1]) for record in records if record.exc_info and record.exc_info[1]]
