"""Elasticsearch as an index: every vector scored by a script, or the approximate search of its graph.

The approximate search, additions, removals and failures are tested with a real server
(tests/integration/test_elastic_server.py). That server lacks Elasticsearch's script language, which is published only
with the whole distribution. The exact search is therefore tested against a recorded protocol, a server of the tests
that returns documented responses, and with a real server only where ELASTICSEARCH_URL names one. OpenSearch
(opensearch_backend.py) runs nearly the same scripts in its tests.
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

with extras.importing("elasticsearch"):
    import elastic_transport
    from elasticsearch import ApiError, Elasticsearch, NotFoundError

#: Metric → similarity of the mapping, for ``search=approximate``.
#: https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector#dense-vector-similarity
SIMILARITIES = {"cosine": "cosine", "euclidean": "l2_norm"}
#: Metric → script, for ``search=exact``. Elasticsearch accepts no negative score.
#: https://www.elastic.co/docs/reference/query-languages/query-dsl/query-dsl-script-score-query#vector-functions
SCRIPTS = {"cosine": "cosineSimilarity(params.v, 'vector') + 1.0", "euclidean": "1 / (1 + l2norm(params.v, 'vector'))"}

# It logs the failures that it raises too. An application that needs the log configures this logger.
logging.getLogger("elastic_transport").addHandler(logging.NullHandler())


class ElasticIndex(DocumentIndex):
    """Elasticsearch's dense vectors, https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector.

    Elasticsearch rejects zero vectors of metric cosine, or fails in every later search
    (https://github.com/elastic/elasticsearch/pull/82241).
    """

    scheme = "elasticsearch"
    product = "Elasticsearch"
    dim_key = "dims"
    scripts = SCRIPTS
    remedy = "Start it with `docker compose up elasticsearch` (compose.yaml), or give a longer timeout"

    def _connect(self) -> Elasticsearch:
        return Elasticsearch(self._url, api_key=key_for(self.address), request_timeout=self.timeout, max_retries=0)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
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
            raise self._failure(error.meta.status, read_reason(error.body) or str(error)) from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._invalid(error) from error

    def _mapping(self) -> dict | None:
        try:
            indexes = self._client.indices.get_mapping(index=self._name).body
        except NotFoundError as error:
            # The client checks the header that identifies Elasticsearch only in a response without an error.
            if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
                raise self._invalid(error) from error
            return None
        (mapping,) = (each["mappings"] for each in indexes.values())
        return mapping

    def _vector_field(self, dim: int) -> dict[str, Any]:
        field: dict[str, Any] = {"type": "dense_vector", "dims": dim, "index": self.approximate}
        if self.approximate:
            field |= {"similarity": SIMILARITIES[self.metric], "index_options": {"type": "hnsw"}}
        return field

    def _approximate_query(self, query: np.ndarray, k: int, condition: dict | None) -> dict[str, Any]:
        knn = {"field": "vector", "query_vector": query.tolist(), "k": k}
        knn |= {"num_candidates": max(self.options.get("candidates", 100), k)}
        return {"knn": knn if condition is None else knn | {"filter": condition}}
