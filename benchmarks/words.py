"""Searches by text: the time of a query against a query by a known image, and the time and memory of loading GloVe.

    python -m benchmarks.words
    python -m benchmarks.words --count 20000 --queries 50

The engine has an exact index of random vectors, and the class scores of random images; no image is read. A query by
image uses the features of an image of the gallery. A query by text finds the words of the text and searches the space
of words. The first text query reads the stored class scores; its time is listed apart. The queries take turns, so that
the load of the computer changes both alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.engine import RandomExtractor
from benchmarks.processes import system_load
from helpers import paths
from helpers.features.text import WordVectors
from helpers.features.word_space import Conse
from helpers.images.imageset import ImageSet
from helpers.search.combined import QueryPart, search_parts
from helpers.search.engine import Engine
from helpers.search.persist import class_scores
from helpers.search.persist.content_table import StoredSource
from helpers.search.persist.engine_file import EngineFile
from helpers.search.word_index import WordIndex

TEXTS = ("boat", "sea lions", "a photo of a grand piano", "joshua_tree", "high-speed train")
K = 10
#: A program that prints the seconds and the megabytes of loading GloVe; nan if the system does not report its memory.
_LOAD = """
import time
import numpy
from benchmarks.processes import memory
from helpers.features.text import WordVectors

before, start = memory("VmRSS"), time.perf_counter()
words = WordVectors.glove()
seconds = time.perf_counter() - start
words.embed_text("a photo of a sailboat")
print(seconds, "nan" if before is None else (memory("VmHWM") - before) / 2**20)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="images in the engine; default: %(default)s")
    parser.add_argument("--dim", type=int, default=1280, help="numbers of a feature vector; default: %(default)s")
    parser.add_argument("--queries", type=int, default=100, help="queries of each kind; default: %(default)s")
    parser.add_argument("--loads", type=int, default=5, help="processes that load GloVe; default: %(default)s")
    options = parser.parse_args()
    print(f"{options.count:,} SYNTHETIC images, {os.cpu_count()} cores, load {system_load()}")
    load_glove(options.loads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "words.engine"
        search(make_engine(folder, options.count, options.dim), folder, options.queries)


def load_glove(times: int) -> None:
    """Print the median time and the largest growth of the resident memory over new processes."""
    lines = [
        subprocess.run(
            [sys.executable, "-c", _LOAD],
            cwd=paths.ROOT,
            env=paths.child_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()  # fmt: skip
        for _ in range(times)
    ]
    seconds, megabytes = np.array(lines, float).T
    memory = "an unknown number of" if np.isnan(megabytes).any() else f"{megabytes.max():.0f}"
    print(f"GloVe loads in {np.median(seconds):.2f} s (best {seconds.min():.2f}) and {memory} MB")


def make_engine(folder: Path, count: int, dim: int) -> Engine:
    """A saved engine of random vectors, with random class scores."""
    random = np.random.default_rng(0)
    files = tuple(Path(f"/gallery/{row:06}.jpg") for row in range(count))
    images = ImageSet("synthetic", files, np.full(count, -1), (), root=Path("/gallery"))
    contents = [row.to_bytes(32, "big") for row in range(count)]
    engine = Engine(RandomExtractor(dim), "exact:cosine").fit(images, contents)
    engine.save(folder)
    with EngineFile(folder) as file, file.writing() as connection:
        class_scores.TABLE.start(connection, StoredSource("random-classes", "random"))
        for start in range(0, count, 1000):
            part = contents[start : start + 1000]
            scores = random.dirichlet(np.full(1000, 0.01), len(part))
            class_scores.TABLE.write(connection, class_scores.rows_of(part, scores))
    return engine


def search(engine: Engine, folder: Path, count: int) -> None:
    """Print the median times of queries by image, by text and by both, and their ratios to that by image."""
    words = WordIndex(folder, Conse(WordVectors.glove()))
    first = seconds(lambda: search_parts(engine, [QueryPart(text="boat")], K, words))
    vectors = engine.index.vectors(np.arange(count) % len(engine))
    spent: dict[str, list[float]] = {"image": [], "text": [], "image + text": []}
    for number, vector in enumerate(vectors):
        image, text = QueryPart(vector=vector), QueryPart(text=TEXTS[number % len(TEXTS)])
        for name, parts in (("image", [image]), ("text", [text]), ("image + text", [image, text])):
            spent[name].append(seconds(lambda parts=parts: search_parts(engine, parts, K, words)))
    by_image = float(np.median(spent["image"]))
    print(f"the first text query, which reads the class scores: {first:.2f} s")
    for name, times in spent.items():
        middle = float(np.median(times))
        print(f"query by {name:14} {1000 * middle:8.2f} ms, {middle / by_image:.2f} times a query by image")
    words.close()


def seconds(function: Callable[[], object]) -> float:
    """The wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
