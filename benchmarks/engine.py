"""The cost of additions, removals and compaction in a saved engine, and the data lost when a writer is killed.

    python -m benchmarks.engine add           add one image to 1,000, 20,000 and 200,000
    python -m benchmarks.engine latency       search while another process adds 20 images per second
    python -m benchmarks.engine removal       search after a tenth of the vectors was removed
    python -m benchmarks.engine compaction    kill (SIGKILL) processes that write and compact, 50 times

Vectors are random, and no image is read, so the feature extractor is not measured. The time of an addition includes its
fsync and depends on the disk.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers import paths
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine
from helpers.search.persist import compaction as compacting
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.snapshot import manifest_of

K = 10
REMOVAL_BACKENDS = ["exact:cosine", "faiss:hnsw", "faiss:opq", "usearch:cosine", "annoy:cosine"]


class RandomExtractor:
    """A stand-in for a feature extractor that returns random vectors."""

    def __init__(self, dim: int):
        self.name, self.dim, self.fingerprint = "random", dim, f"random-{dim}"

    def extract(self, images: ImageSet, **_: object) -> np.ndarray:
        """float32 (n, dim)."""
        return random_vectors(len(images), self.dim)


def random_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """float32 (count, dim)."""
    return np.random.default_rng(seed).standard_normal((count, dim), np.float32)


def make_engine(folder: Path, count: int, dim: int, index: str = "exact:cosine") -> Path:
    """A saved engine of random vectors."""
    files = tuple(Path(f"/gallery/class-{i % 100:02}/image-{i:06}.jpg") for i in range(count))
    names = tuple(f"class-{i:02}" for i in range(100))
    images = ImageSet("synthetic", files, np.arange(count) % 100, names, root=Path("/gallery"))
    return Engine(RandomExtractor(dim), index).fit(images).save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True, metavar="PART")
    part = parts.add_parser("add", help="add one image to galleries of several sizes")
    part.add_argument("--counts", type=int, nargs="+", default=[1000, 20_000, 200_000])
    part.add_argument("--times", type=int, default=200)
    part.set_defaults(run=add)
    part = parts.add_parser("latency", help="search while another process adds")
    part.add_argument("--count", type=int, default=20_000)
    part.add_argument("--seconds", type=float, default=20)
    part.add_argument("--rate", type=float, default=20, help="images per second")
    part.set_defaults(run=latency)
    part = parts.add_parser("removal", help="search after a tenth of the vectors was removed")
    part.add_argument("--count", type=int, default=100_000)
    part.add_argument("--backends", nargs="+", default=REMOVAL_BACKENDS)
    part.add_argument("--times", type=int, default=300)
    part.set_defaults(run=removal)
    part = parts.add_parser("compaction", help="kill processes that write and compact")
    part.add_argument("--kills", type=int, default=50)
    part.add_argument("--seed", type=int, default=0)
    part.set_defaults(run=compaction)
    for name, each in parts.choices.items():
        each.add_argument("--dim", type=int, default=8 if name == "compaction" else 256)
    options = parser.parse_args()
    options.run(options)


# ---- measurements ------------------------------------------------------------------------------------------------


def add(options: argparse.Namespace) -> None:
    """Print the time of one addition for each size."""
    medians, vectors = {}, random_vectors(options.times, options.dim, seed=1)
    for count in options.counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_engine(Path(temporary) / "engine", count, options.dim)
            with LiveEngine.open(folder, RandomExtractor(options.dim)) as live:
                spent = [
                    # With a content, so that paths and contents are looked up.
                    timed(live.add_extracted, [f"/new/{row}.jpg"], vectors[row : row + 1], ["new"], [row.to_bytes(16)])
                    for row in range(options.times)
                ]
        medians[count] = float(np.median(spent))
        print(f"{count:>9,}: median {1000 * medians[count]:.2f} ms, p95 {1000 * np.quantile(spent, 0.95):.2f} ms")
    ratio = max(medians.values()) / min(medians.values())
    print(f"{verdict(max(medians.values()) < 0.01)} every median is below 10 ms")
    print(f"{verdict(ratio < 2)} the slowest median is {ratio:.2f} times the fastest (target: below 2)")


def latency(options: argparse.Namespace) -> None:
    """Print the 99th percentile of search times, with and without another process that adds images."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_engine(Path(temporary) / "engine", options.count, options.dim)
        with LiveEngine.open(folder, RandomExtractor(options.dim)) as live:
            searches(live, 2, options.dim)
            idle = searches(live, options.seconds, options.dim)
            adder = start_child(ADDING, folder, options.dim, options.rate)
            try:
                adder.stdout.readline()
                before = len(live)
                busy = searches(live, options.seconds, options.dim)
                live.refresh()
                added = len(live) - before
            finally:
                adder.kill()
                adder.communicate()
    for name, spent in (("idle", idle), ("busy", busy)):
        print(
            f"{name}: {len(spent):,} searches, median {1000 * np.median(spent):.2f} ms, "
            f"p99 {1000 * np.quantile(spent, 0.99):.2f} ms, max {1000 * max(spent):.2f} ms"
        )
    ratio = np.quantile(busy, 0.99) / np.quantile(idle, 0.99)
    print(f"{added / options.seconds:.1f} images per second were added to {options.count:,}")
    print(f"{verdict(ratio < 3)} p99 is {ratio:.2f} times the idle one (target: below 3)")


def removal(options: argparse.Namespace) -> None:
    """Print the time of a search before and after a tenth of the vectors was removed."""
    queries = random_vectors(options.times, options.dim, seed=2)
    for spec in options.backends:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_engine(Path(temporary) / "engine", options.count, options.dim, spec)
            # A tenth is just not enough for compaction.
            with LiveEngine.open(folder, RandomExtractor(options.dim)) as live:
                whole = live.engine
                removed = np.random.default_rng(3).choice(options.count, options.count // 10, replace=False)
                removing = timed(live.remove, removed)
                before, after = alternating([whole, live.engine], queries)
        ratio = after / before
        print(
            f"{verdict(ratio <= 1.3)} {spec}: {1000 * before:.3f} ms before, {1000 * after:.3f} ms after "
            f"{len(removed):,} of {options.count:,} were removed in {removing:.2f} s: {ratio:.2f} times (target: 1.3)"
        )


def compaction(options: argparse.Namespace) -> None:
    """Print the changes that were lost when writers were killed repeatedly."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_engine(Path(temporary) / "engine", 500, options.dim, "exact:euclidean")
        start = time.perf_counter()
        outcome = kill_writers(folder, options.kills, options.seed, options.dim)
    print(
        f"{options.kills} kills in {time.perf_counter() - start:.0f} s: {outcome.added:,} additions and "
        f"{outcome.removed:,} removals were acknowledged, {outcome.compacted:,} changes were compacted in "
        f"{outcome.compactions} compactions"
    )
    print(f"{verdict(not outcome.problems)} lost or repeated changes: {outcome.problems[:5] or 'none'} (target: none)")


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def searches(live: LiveEngine, seconds: float, dim: int) -> list[float]:
    """Search for the given time, and return the seconds of each search."""
    queries, spent, end = random_vectors(256, dim, seed=4), [], time.perf_counter() + seconds

    def search() -> None:
        live.refresh()
        live.engine.query_vector(queries[len(spent) % len(queries)], K)

    while time.perf_counter() < end:
        spent.append(timed(search))
    return spent


def alternating(engines: list[Engine], queries: np.ndarray) -> list[float]:
    """Median seconds of a search with each engine; the engines take turns, so that a busy moment affects all."""
    spent = [[timed(engine.query_vector, query, K) for engine in engines] for query in queries]
    # The first searches load and prepare.
    return np.median(spent[5:], axis=0).tolist()


def verdict(kept: bool) -> str:
    return "yes:" if kept else "NO: "


# ---- killed writers ----------------------------------------------------------------------------------------------

ADDING = """
import sys, time
from benchmarks.engine import LiveEngine, RandomExtractor, random_vectors
folder, dim, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
vectors = random_vectors(1000, dim, seed=5)
with LiveEngine.open(folder, RandomExtractor(dim)) as live:
    start, number = time.perf_counter(), 0
    while True:
        live.add_extracted([f"/new/{number}.jpg"], vectors[number % 1000][None], ["new"])
        number += 1
        print(number, flush=True)
        time.sleep(max(0, start + number / rate - time.perf_counter()))
"""

WRITING = """
import sys
from benchmarks.engine import write_until_killed
write_until_killed(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def start_child(script: str, *arguments: object) -> subprocess.Popen:
    """Start a Python process whose output can be read."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=paths.ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)


def write_until_killed(folder: str, dim: int, seed: int) -> None:
    """Add, remove and compact in a loop, and print each acknowledged change as a line of JSON."""
    compacting.LEAST_CHANGES, compacting.SHARE = 20, 0
    rng, own = np.random.default_rng(seed), []
    with LiveEngine.open(folder, RandomExtractor(dim)) as live:
        while True:
            if len(own) > 10 and rng.random() < 0.3:
                ids = [own.pop(int(rng.integers(len(own)))) for _ in range(2)]
                print(json.dumps({"removing": ids}), flush=True)
                live.remove(ids)
                print(json.dumps({"removed": ids}), flush=True)
            else:
                # The first number of a vector identifies its addition.
                marks = rng.random((int(rng.integers(1, 4)), dim), np.float32)
                ids = live.add_extracted(["/new.jpg"] * len(marks), marks, ["new"] * len(marks)).ids.tolist()
                print(json.dumps({"added": ids, "marks": marks[:, 0].tolist()}), flush=True)
                own += ids


@dataclass
class Outcome:
    """The acknowledged changes and the problems found.

    doubtful : ids whose removal was started, and may or may not have been completed.
    """

    marks: dict[int, float] = field(default_factory=dict)
    removed_ids: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    compacted: int = 0
    compactions: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def added(self) -> int:
        return len(self.marks)

    @property
    def removed(self) -> int:
        return len(self.removed_ids)

    def take(self, line: str) -> None:
        """Record one line of a writer."""
        record = json.loads(line)
        self.doubtful |= set(record.get("removing", ()))
        self.removed_ids |= set(record.get("removed", ()))
        for id, mark in zip(record.get("added", ()), record.get("marks", ()), strict=True):
            if id in self.marks:
                self.problems.append(f"id {id} was assigned twice")
            self.marks[id] = mark

    def compare(self, engine: Engine) -> None:
        """Compare with an engine whose index stores vectors exactly."""
        indexed = set(engine.index.ids.tolist())
        lost = self.marks.keys() - indexed - self.doubtful
        restored = self.removed_ids & indexed
        self.problems += [f"{len(lost)} additions are lost: {sorted(lost)[:5]}"] if lost else []
        self.problems += [f"{len(restored)} removals are lost: {sorted(restored)[:5]}"] if restored else []
        found = sorted(self.marks.keys() & indexed)
        if found:
            marks = engine.index.vectors(found)[:, 0]
            wrong = np.flatnonzero(marks != np.float32([self.marks[id] for id in found]))
            self.problems += [f"ids {[found[i] for i in wrong[:5]]} have another vector"] if len(wrong) else []


def kill_writers(folder: Path, kills: int, seed: int, dim: int) -> Outcome:
    """Repeatedly kill one of two writers at a random moment and start another; then check the engine."""
    rng, outcome, started, files = np.random.default_rng(seed), Outcome(), 0, set()
    writers: list[subprocess.Popen] = []
    for _ in range(kills):
        while len(writers) < 2:
            started += 1
            writers.append(start_child(WRITING, folder, dim, seed * 1000 + started))
            # Wait for the first line, which shows that the writer is running.
            outcome.take(writers[-1].stdout.readline())
        time.sleep(float(rng.uniform(0, 0.3)))
        files.add(manifest_of(folder).index_file)
        end(writers.pop(int(rng.integers(2))), outcome)
    for writer in writers:
        end(writer, outcome)
    outcome.compactions, outcome.compacted = len(files) - 1, manifest_of(folder).log_position
    outcome.compare(Engine.load(folder, RandomExtractor(dim)))
    compacting.compact(folder)
    outcome.compare(Engine.load(folder, RandomExtractor(dim)))
    return outcome


def end(writer: subprocess.Popen, outcome: Outcome) -> None:
    """Kill a writer and record the changes that it acknowledged."""
    writer.send_signal(signal.SIGKILL)
    # The last line may be incomplete.
    for line in writer.stdout.read().split("\n")[:-1]:
        outcome.take(line)
    writer.wait()


if __name__ == "__main__":
    main()
