"""Searches for the queries of a comparison, one by one, with a backend and a re-ranker."""

from functools import partial

import numpy as np
from tqdm.auto import tqdm

from helpers.evaluation.comparison_costs import Cost, median_milliseconds
from helpers.evaluation.comparison_tasks import Task
from helpers.search.index import open_index
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank.query import SearchSpace, rerank
from helpers.search.rerank.registry import SHORTLIST, reranker

#: Results of a timed search, and the most of them.
TIMED_RESULTS, TIMED_SEARCHES = 10, 50


class Searcher:
    """The gallery of a task in an index.

    The first `SHORTLIST` results of a query are those that a person gets from the backend. All others follow by exact
    similarity: mAP needs a ranking of the whole gallery, and a deep search in an approximate index is either exact,
    which hides what the index misses, or ends early.

    vectors : float32 (n, dim), row *i* for id *i* of the task's protocol. backend : the name of the index.
    """

    def __init__(self, task: Task, vectors: np.ndarray, backend: str):
        self.task, self.vectors = task, vectors
        gallery = task.protocol.gallery
        self.index = open_index(backend).add(vectors[gallery], gallery)
        exact = f"exact:{self.index.metric}"
        self._exact = self.index if self.index.spec == exact else open_index(exact).add(vectors[gallery], gallery)

    @property
    def bytes_per_image(self) -> float:
        """Of the index in memory."""
        return self.index.nbytes / len(self.index)

    def ranking(self, name: str, title: str) -> Ranking:
        """The whole gallery for each query, after re-ranking by name. The progress bar shows ``title``."""
        width, needs_image = int(self.task.protocol.n_candidates.max()), reranker(name).needs_image
        rows = [
            self._search(row, width, name, self.task.pixels(row) if needs_image else None)
            for row in tqdm(range(len(self.task.protocol.queries)), desc=title, disable=None)
        ]
        return Ranking(np.concatenate([one.ids for one in rows]), np.concatenate([one.scores for one in rows]))

    def time(self, name: str) -> Cost:
        """The median time of a query, from its vector to `TIMED_RESULTS` results; its image was read before."""
        rows = np.random.default_rng(self.task.seed).permutation(len(self.task.protocol.queries))[:TIMED_SEARCHES]
        pixels = {row: self.task.pixels(row) if reranker(name).needs_image else None for row in rows.tolist()}
        return median_milliseconds(lambda row: self._search(row, TIMED_RESULTS, name, pixels[row]), rows.tolist())

    def _search(self, row: int, k: int, name: str, pixels: np.ndarray | None) -> Ranking:
        protocol = self.task.protocol
        first = partial(self._first, protocol.ignored(row))
        space = SearchSpace(self.index.metric, first, self.index.vectors, self.task.images.subset)
        return rerank(space, self.vectors[protocol.queries[row]], k, name, pixels)

    def _first(self, ignored: np.ndarray, vector: np.ndarray, k: int) -> Ranking:
        """The ``k`` best results of one query, without padding."""
        page = self.index.search(vector[None], min(k, SHORTLIST), excluded=ignored)
        used = page.ids[0] != PAD
        page = Ranking(page.ids[:, used], page.scores[:, used])
        if k <= SHORTLIST or not page.k:
            return page
        deep = self._exact.search(vector[None], k, excluded=ignored).ids[0]
        rest = deep[(deep != PAD) & ~np.isin(deep, page.ids[0])][: k - page.k]
        # Only the order matters; a step of one keeps it.
        scores = page.scores[0, -1].astype(np.float64) - np.arange(1, len(rest) + 1)
        return Ranking(np.append(page.ids, rest[None], axis=1), np.append(page.scores, scores[None], axis=1))
