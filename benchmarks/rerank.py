"""The time of one query for each re-ranker, on a large gallery.

    python -m benchmarks.rerank
    python -m benchmarks.rerank --count 20000 --backend faiss:hnsw

All re-rankers and the plain search run on the same queries, one query per call. The time does not include the
extraction of the query's vector. The vectors are synthetic: they are generated from ResNet50's vectors of real
photographs (`helpers.lessons.synthetic_vectors`). For geometry, each gallery image is one of these photographs.

Each query runs twice. The rounds only differ for geometry: the first round reads up to fifty photographs and extracts
their keypoints, and the second finds the keypoints in a temporary cache. Both rounds extract the keypoints of the
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
    parser.add_argument("--backend", default="exact:cosine", help="default: %(default)s")
    compare(parser.parse_args())


def compare(options: argparse.Namespace) -> None:
    """Print one line per re-ranker."""
    photos = real_images(options.photos + options.queries)
    vectors = open_extractor("resnet50").extract(photos)
    query_rows = np.linspace(0, len(photos) - 1, options.queries).astype(int)
    gallery = np.setdiff1d(np.arange(len(photos)), query_rows)
    synthetic = synthesize(vectors[gallery], options.count)
    index = open_index(options.backend)
    for block in synthetic:
        index.add(block)
    space = SearchSpace(
        index.metric,
        lambda vector, k: index.search(vector[None], k),
        index.vectors,
        lambda ids: photos.subset(gallery[ids % len(gallery)]),
    )
    queries = [(vectors[row], read_image(photos.paths[row])) for row in query_rows]
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, LOOKALIKE_CACHE=cache):
        spent = [timed(space, queries) for _ in range(2)]
    print(f"{synthetic}, {options.backend}; {len(queries)} queries; {conditions(photos)}")
    print(f"  {'':16} {'first':>9} {'max':>9} {'again':>9} {'max':>9}   times none")
    for name in NAMES:
        first, again = (round[name] for round in spent)
        print(
            f"  {name:16} {1000 * median(first):6.0f} ms {1000 * max(first):6.0f} ms {1000 * median(again):6.0f} ms "
            f"{1000 * max(again):6.0f} ms   {median(again) / median(spent[1]['none']):.1f}"
        )


def timed(space: SearchSpace, queries: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Name → seconds of each query. The re-rankers take turns, so that other load affects all of them."""
    rerank(space, *queries[0][:1], K, "k-reciprocal")  # the first call imports modules
    spent: dict[str, list[float]] = {name: [] for name in NAMES}
    for vector, image in queries:
        for name in NAMES:
            start = time.perf_counter()
            rerank(space, vector, K, name, image)
            spent[name].append(time.perf_counter() - start)
    return spent


if __name__ == "__main__":
    main()
