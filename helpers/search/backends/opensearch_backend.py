"""OpenSearch as an index: every vector scored by a script, or the approximate search of its graph.

The tests start a server and kill it (tests/integration/test_opensearch.py).
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import urllib3

from helpers import extras
from helpers.search.backends.remote import ServerRefused, TemporaryFailure, key_for
from helpers.search.backends.rest_documents import DocumentIndex, read_reason

with extras.importing("opensearch"):
    from opensearchpy import OpenSearch, exceptions

#: Metric → space of the graph, for ``search=approximate``.
#: https://docs.opensearch.org/latest/mappings/supported-field-types/knn-spaces/
SPACES = {"cosine": "cosinesimil", "euclidean": "l2"}
#: Metric → script, for ``search=exact``. OpenSearch accepts no negative score.
#: https://docs.opensearch.org/latest/vector-search/vector-search-techniques/painless-functions/
SCRIPTS = {
    "cosine": "cosineSimilarity(params.v, doc['vector']) + 1.0",
    "euclidean": "1 / (1 + Math.sqrt(l2Squared(params.v, doc['vector'])))",
}

# It logs the failures that it raises too. An application that needs the log configures this logger.
logging.getLogger("opensearch").addHandler(logging.NullHandler())


class OpenSearchIndex(DocumentIndex):
    """Vectors of OpenSearch's k-NN plugin, https://docs.opensearch.org/latest/mappings/supported-field-types/knn-vector/.

    The graph is Lucene's. `sign_in` takes ``user:password`` for this server.
    """

    scheme = "opensearch"
    product = "OpenSearch"
    dim_key = "dimension"
    scripts = SCRIPTS
    remedy = "Start it with `docker compose up opensearch` (compose.yaml), or give a longer timeout"

    def _connect(self) -> OpenSearch:
        key = key_for(self.address)
        return OpenSearch(
            self._url, http_auth=None if key is None else tuple(key.split(":", 1)), timeout=self.timeout, max_retries=0
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exceptions.ConnectionTimeout as error:
            raise TemporaryFailure(f"no response within {self.timeout:g} s", uncertain=True) from error
        except exceptions.SSLError as error:
            raise ServerRefused(f"{self.address}: no encrypted connection: {error.error}.") from error
        except exceptions.ConnectionError as error:
            refused = isinstance(error.info, urllib3.exceptions.NewConnectionError)
            raise TemporaryFailure(str(error.error), uncertain=not refused) from error
        except exceptions.TransportError as error:
            # Other servers send no reason.
            raise self._failure(int(error.status_code), read_reason(error.info) or str(error.error)) from error
        except (
            exceptions.SerializationError, KeyError, TypeError, ValueError, IndexError, AttributeError,
        ) as error:  # fmt: skip
            raise self._invalid(error) from error

    def _mapping(self) -> dict | None:
        version = self._client.info()["version"]
        if version.get("distribution") != "opensearch":
            raise self._invalid(f"it is version {version['number']} of another product")
        try:
            indexes = self._client.indices.get_mapping(index=self._name)
        except exceptions.NotFoundError:
            return None
        (mapping,) = (each["mappings"] for each in indexes.values())
        return mapping

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"knn": self.approximate}

    def _vector_field(self, dim: int) -> dict[str, Any]:
        field: dict[str, Any] = {"type": "knn_vector", "dimension": dim}
        if self.approximate:
            field |= {"method": {"name": "hnsw", "engine": "lucene", "space_type": SPACES[self.metric]}}
        return field

    def _approximate_query(self, query: np.ndarray, k: int, condition: dict | None) -> dict[str, Any]:
        depth = max(self.options.get("candidates", 100), k)
        knn = {"vector": query.tolist(), "k": k, "method_parameters": {"ef_search": depth}}
        return {"query": {"knn": {"vector": knn if condition is None else knn | {"filter": condition}}}}
