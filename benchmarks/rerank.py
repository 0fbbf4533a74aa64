"""Re-rankers over a large gallery: how long one query takes.

    python -m benchmarks.rerank
    python -m benchmarks.rerank --count 20000 --index faiss:hnsw

Times each re-ranker of the registry on the same queries, one query a call, with the query's vector known,
against the plain search. The vectors are synthetic: they are made from ResNet50's vectors of real photographs
(`helpers.lessons.synthetic_vectors`). A gallery image that geometry compares is one of these photographs. Each query
runs twice. The rounds differ only for geometry: the first one reads up to fifty photographs and extracts their
keypoints, the second one finds them in a cache, which is a temporary folder here. Both extract the keypoints of the
query.
"""

import argparse
import os
import tempfile
import time
from statistics import median
from unittest import mock

import numpy as np

from benchmarks.inputs import conditions, real_images
from helpers.features.registry import open_extractor
from helpers.images.reading import read_image
from helpers.lessons.synthetic_vectors import synthesize
from helpers.search.index import open_index
from helpers.search.rerank import NAMES, SearchSpace, rerank

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="gallery vectors; default: %(default)s")
    parser.add_argument("--photos", type=int, default=1000, help="real images behind the vectors; default: %(default)s")
    parser.add_argument("--queries", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--index", default="exact:cosine", help="default: %(default)s")
    options = parser.parse_args()
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Print one line a re-ranker."""
    photos = real_images(options.photos + options.queries)
    vectors = open_extractor("resnet50").extract(photos)
    asked = np.linspace(0, len(photos) - 1, options.queries).astype(int)
    gallery = np.setdiff1d(np.arange(len(photos)), asked)
    synthetic = synthesize(vectors[gallery], options.count)
    index = open_index(options.index)
    for block in synthetic:
        index.add(block)
    space = SearchSpace(
        index.metric,
        lambda vector, k: index.search(vector[None], k),
        index.vectors,
        lambda ids: photos.subset(gallery[ids % len(gallery)]),
    )
    queries = [(vectors[row], read_image(photos.paths[row])) for row in asked]
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, LOOKALIKE_CACHE=cache):
        spent = [timed(space, queries) for _ in range(2)]
    print(f"{synthetic}, {options.index}; {len(queries)} queries; {conditions(photos)}")
    print(f"  {'':16} {'first':>9} {'most':>9} {'again':>9} {'most':>9}   times none")
    for name in NAMES:
        first, again = (round[name] for round in spent)
        print(
            f"  {name:16} {1000 * median(first):6.0f} ms {1000 * max(first):6.0f} ms {1000 * median(again):6.0f} ms "
            f"{1000 * max(again):6.0f} ms   {median(again) / median(spent[1]['none']):.1f}"
        )


def timed(space: SearchSpace, queries: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Name → seconds of each query; the names take turns, so that a busy moment is no matter of one of them."""
    rerank(space, *queries[0][:1], K, "k-reciprocal")  # loads what is imported at the first call
    spent: dict[str, list[float]] = {name: [] for name in NAMES}
    for vector, image in queries:
        for name in NAMES:
            start = time.perf_counter()
            rerank(space, vector, K, name, image)
            spent[name].append(time.perf_counter() - start)
    return spent


if __name__ == "__main__":
    main()
