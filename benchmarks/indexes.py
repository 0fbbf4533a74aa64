"""Indexes at scale: recall, time and memory of each, on real vectors and on many more synthetic ones.

    python -m benchmarks.indexes --real          all real vectors, about ten thousand
    python -m benchmarks.indexes                 one million of 256 numbers; --count 100000 for fewer
    python -m benchmarks.indexes --exact         exact:cosine against FAISS's flat index, 100 thousand of 2048 numbers
    python -m benchmarks.indexes --published     Manhattan Annoy with 30 trees on 4096 numbers, beside graphs
    python -m benchmarks.indexes --recipe        how synthetic vectors compare with as many real ones
    python -m benchmarks.indexes --only hnsw annoy-30
    python -m benchmarks.indexes --table FILE    also writes all that was measured, one line an index at one effort

Real vectors are ResNet50's of all images of all data sets, each content once; 256 numbers are their principal axes,
learned without the queries. Queries are real images that are kept out of everything else. Synthetic vectors come from
`helpers.lessons.synthetic_vectors`; whatever was measured with them says so.

Each index is built in a process of its own, whose peak of memory (VmHWM) right after building includes Python, the
libraries and the given vectors, which are mapped from a file; then it is measured at rising efforts until it finds
0.99, or three more efforts find next to nothing more; then saved, and opened memory-mapped by another process. A file
that was just written is still in the system's memory, so opening is measured without a slow disk. One query is asked a
call, with as many threads as the library takes by itself. What was measured is kept in the cache's
``benchmarks/indexes``: a run that was broken off goes on there, and says what is from before; ``--again`` does all
anew.

The published system keeps a million vectors of 4096 numbers. They take 16 GB, and Annoy's file as much again, so here
there are 200 thousand by default: `--count` takes more where memory and disk (three times the vectors) allow it. Its
numbers are ResNet50's 2048 turned into 4096 dimensions by a random rotation, which leaves all angles and Euclidean
distances as they are.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.processes import child, peak_memory
from helpers import paths
from helpers.lessons.index_measurement import build, exact_truth, measure, milliseconds_at, recalls, sufficient, threads
from helpers.lessons.index_tuning import Candidate
from helpers.lessons.synthetic_vectors import BLOCK, SyntheticVectors, synthesize
from helpers.search.index import load_index, open_index
from helpers.search.ranking import Ranking

K = 10
ENOUGH, PLENTY = 0.95, 0.99
SEED = 0
#: Counts by default.
MILLION, FOR_EXACT, FOR_PUBLISHED = 1_000_000, 100_000, 200_000

_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_NODES = (300, 1000, 2000, 3000, 4000, 5000, 7000, *range(10_000, 50_000, 5000), *range(50_000, 500_001, 25_000))

_GRAPH = tuple({"search": width} for width in _WIDTHS)
_USEARCH = tuple({"expansion_search": width} for width in _WIDTHS)
_ANNOY = tuple({"search": nodes} for nodes in _NODES)

INDEXES = {
    "exact": Candidate("exact:cosine"),
    "sklearn": Candidate("sklearn:cosine"),
    "flat": Candidate("faiss:flat"),
    "ivf": Candidate("faiss:ivf", tuple({"probes": lists} for lists in _PROBES)),
    "pq": Candidate("faiss:pq", tuple({"depth": times} for times in (1, 2, 4, 8, 16, 32, 64))),
    "opq": Candidate("faiss:opq", tuple({"probes": lists, "depth": min(64, max(8, lists))} for lists in _PROBES)),
    "usearch-i8": Candidate("usearch:cosine?dtype=i8", _USEARCH),
    "usearch-f16": Candidate("usearch:cosine?dtype=f16", _USEARCH),
    "annoy-10": Candidate("annoy:angular?trees=10", _ANNOY),
    "annoy-30": Candidate("annoy:angular?trees=30", _ANNOY),
    "annoy-100": Candidate("annoy:angular?trees=100", _ANNOY),
    "annoy-manhattan": Candidate("annoy:manhattan?trees=30", _ANNOY),
    "hnsw": Candidate("faiss:hnsw?m=32", _GRAPH),
}
#: Those that no wish is about.
REFERENCES = ("exact", "sklearn", "flat", "pq", "annoy-10", "annoy-30", "annoy-100", "annoy-manhattan")
#: The published system, as it comes, and what finds the same kind of images.
PUBLISHED = {
    "published": Candidate("annoy:manhattan?trees=30"),
    "usearch-f16": Candidate("usearch:cosine?dtype=f16", _USEARCH),
    "hnsw-f16": Candidate("faiss:hnsw?m=32&storage=float16", _GRAPH),
}


@dataclass(frozen=True)
class Data:
    """Vectors and queries on disk.

    folder : holds ``vectors.npy``, ``queries.npy``, ``truth-*.npz`` and results. label : what they are, in words.
    """

    folder: Path
    label: str

    @property
    def vectors(self) -> np.ndarray:
        """float32 (n, dim), mapped."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @property
    def queries(self) -> np.ndarray:
        """float32 (q, dim)."""
        return np.load(self.folder / "queries.npy")

    def truth(self, metric: str) -> Ranking:
        """Found once by exact search."""
        path = self.folder / f"truth-{metric}.npz"
        if not path.exists():
            say(f"exact search by {metric} for {len(self.queries)} queries …")
            found = exact_truth(self.vectors, self.queries, K, metric, cache=False)
            part = path.with_name(f".{path.name}.part.npz")
            np.savez(part, ids=found.ids, scores=found.scores)
            part.replace(path)
        with np.load(path) as stored:
            return Ranking(stored["ids"], stored["scores"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--real", action="store_true", help="only the real vectors")
    what.add_argument("--exact", action="store_true", help="exact:cosine against FAISS's flat index")
    what.add_argument("--published", action="store_true", help="the published system beside ours")
    what.add_argument("--recipe", action="store_true", help="synthetic vectors against real ones")
    parser.add_argument("--count", type=int, help="number of synthetic vectors; see above for the default")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of: {', '.join([*INDEXES, *PUBLISHED])}")
    parser.add_argument("--again", action="store_true", help="measure what has been measured, too")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write what was measured there, as CSV")
    parser.add_argument("--child", choices=("build", "open"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    candidates = PUBLISHED if asked.published else INDEXES
    if asked.child:
        task = {"build": build_one, "open": open_one}[asked.child]
        print(json.dumps(task(candidates[asked.only[0]], asked.folder)))
        return
    unknown = set(asked.only or ()) - set(candidates)
    if unknown:
        parser.error(f"no index is called {unknown.pop()}; there are: {', '.join(candidates)}")
    if asked.table and (asked.exact or asked.recipe):
        parser.error("--exact and --recipe print all they measure: leave --table out")
    if asked.count is not None and (asked.real or asked.recipe):
        parser.error("--real and --recipe take the real vectors that there are: leave --count out")
    chosen = {name: candidates[name] for name in asked.only or candidates}
    start = time.perf_counter()
    if asked.recipe:
        compare_recipe()
    elif asked.exact:
        compare_exact(make_data(asked.count or FOR_EXACT, 2048))
    elif asked.published:
        data = make_data(asked.count or FOR_PUBLISHED, 4096, queries=100)
        found = results(data, chosen, asked.again, "--published")
        compare_published(data, found)
    else:
        data = make_data(None if asked.real else asked.count or MILLION, 256)
        found = results(data, chosen, asked.again)
        compare_indexes(data, found)
    if asked.table:
        table(data, found).round(6).to_csv(asked.table, index=False)
    print(f"took {(time.perf_counter() - start) / 60:.1f} min")


def say(text: str) -> None:
    """Progress, beside what is printed."""
    print(text, file=sys.stderr, flush=True)


# ---- vectors -----------------------------------------------------------------------------------------------------


def real_vectors() -> np.ndarray:
    """float32 (n, 2048) of length one: ResNet50's of all images of all data sets, equal ones once, in a fixed order.

    Without a mirror, those of the sample: too few to say much.
    """
    from helpers.features.registry import open_extractor
    from helpers.images import caltech101, cifar10, imagenet, lfw, samples

    sets = [samples.with_distractors]
    if paths.mirror_dir() is not None:
        sets += [imagenet.imagenette, imagenet.one_per_class, caltech101.load, cifar10.load, lfw.load]
    network = open_extractor("resnet50")
    vectors = np.concatenate([network.extract(load()) for load in sets])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    contents = {hashlib.blake2b(vector.data, digest_size=16).digest(): row for row, vector in enumerate(vectors)}
    vectors = vectors[[row for _, row in sorted(contents.items())]]
    return vectors[np.random.default_rng(SEED).permutation(len(vectors))]


def of_dim(vectors: np.ndarray, queries: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Both with ``dim`` numbers: by principal axes of the vectors where that is fewer, by a rotation where it is more.

    Axes are taken as they are, without whitening, so that distances stay what they are but for what is left out.
    """
    from helpers.features import projection

    given = vectors.shape[1]
    if dim < given:
        project = projection.learn(vectors, dim, "all real images but the queries", whitening=0)
        return project(vectors), project(queries)
    if dim > given:
        axes, _ = np.linalg.qr(np.random.default_rng(SEED).standard_normal((dim, given)))
        return (vectors @ axes.T).astype(np.float32), (queries @ axes.T).astype(np.float32)
    return vectors, queries


def make_data(count: int | None, dim: int, queries: int = 500) -> Data:
    """Vectors on disk: ``count`` synthetic ones, or all real ones for None; made once."""
    real = real_vectors()
    held_out = min(queries, len(real) // 5)
    asked, rest = real[:held_out], real[held_out:]
    digest = hashlib.blake2b(f"{count} {dim} {held_out} {synthesize.__kwdefaults__} {synthesize.__defaults__}".encode())
    digest.update(np.ascontiguousarray(real).data)
    many = "real" if count is None else count
    folder = paths.cache_dir() / "benchmarks" / "indexes" / f"{many}x{dim}-{digest.hexdigest()[:12]}"
    about = folder / "label.txt"
    if not about.exists():
        say(f"making {many} vectors of {dim} numbers in {folder} …")
        folder.mkdir(parents=True, exist_ok=True)
        rest, asked = of_dim(rest, asked, dim)
        synthetic = None if count is None else synthesize(rest, count, SEED)
        np.save(folder / "queries.npy", asked)
        _write(folder / "vectors.npy", rest if synthetic is None else synthetic)
        # Written last: it stands for all being there.
        about.write_text(
            f"{len(rest):,} REAL vectors of {dim} numbers" if synthetic is None else str(synthetic), encoding="utf-8"
        )
    return Data(folder, f"{about.read_text(encoding='utf-8')}, {held_out} real queries that are not among them")


def _write(path: Path, vectors: np.ndarray | SyntheticVectors) -> None:
    if isinstance(vectors, np.ndarray):
        np.save(path, vectors)
        return
    room = shutil.disk_usage(path.parent).free
    if room < 4.5 * vectors.count * vectors.dim:
        raise SystemExit(f"{path.parent} has {room / 1e9:.1f} GB free, too few: give --count a smaller number")
    file = np.lib.format.open_memmap(path, "w+", np.float32, (vectors.count, vectors.dim))
    for number, block in enumerate(vectors):
        file[number * BLOCK : number * BLOCK + len(block)] = block
        if number % 25 == 24:
            say(f"  {(number + 1) * BLOCK:,} of {vectors.count:,} made")
    file.flush()


# ---- one index, in a process of its own --------------------------------------------------------------------------


def build_one(candidate: Candidate, folder: Path) -> dict:
    data = Data(folder, "")
    vectors, queries = data.vectors, data.queries
    before = peak_memory()
    index, seconds = build(candidate.spec, vectors)
    peak = peak_memory()
    say(f"  built in {seconds:.1f} s")
    rows, truth = [], data.truth(index.metric)
    for effort in candidate.efforts:
        measured = measure(index.tune(**effort), queries, truth, K)
        rows.append(measured.row())
        say(f"  {measured.spec}: recall@{K} {measured.recall:.4f}, {measured.milliseconds:.3f} ms")
        if measured.recall >= PLENTY or (len(rows) > 3 and rows[-1]["recall"] - rows[-4]["recall"] < 0.001):
            break
    # It is opened at the effort that suffices.
    index.tune(**candidate.efforts[sufficient(pd.DataFrame(rows), ENOUGH).name])
    start = time.perf_counter()
    index.save(saved_at(folder, candidate))
    return {
        "build_seconds": seconds,
        "peak_before": before,
        "peak": peak,
        "rows": rows,
        "save_seconds": time.perf_counter() - start,
        "file_bytes": saved_at(folder, candidate).stat().st_size,
    }


def open_one(candidate: Candidate, folder: Path) -> dict:
    query = Data(folder, "").queries[:1]
    # A backend is imported when it is first asked for, which is no part of opening a file.
    open_index(candidate.spec)
    start = time.perf_counter()
    index = load_index(saved_at(folder, candidate), mmap=True)
    opened = time.perf_counter() - start
    index.search(query, K)
    return {"open_seconds": opened, "first_answer_seconds": time.perf_counter() - start, "open_peak": peak_memory()}


def saved_at(folder: Path, candidate: Candidate) -> Path:
    return folder / f"{_file_name(candidate)}.index"


def _file_name(candidate: Candidate) -> str:
    kept = "".join(letter if letter.isalnum() else "-" for letter in candidate.spec)
    return f"{kept}-{hashlib.sha256(repr(candidate).encode()).hexdigest()[:8]}"


def results(data: Data, candidates: dict[str, Candidate], again: bool, *flags: str) -> dict[str, dict]:
    """What was measured of each, from the file where that was done before."""
    found = {}
    for name, candidate in candidates.items():
        path = data.folder / f"{_file_name(candidate)}.json"
        if path.exists() and not again:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
            say(f"{name}: measured {found[name]['when']}")
            continue
        say(f"{name}: {candidate.spec} …")
        data.truth(open_index(candidate.spec).metric)
        arguments = (*flags, "--only", name, "--folder", str(data.folder))
        try:
            result = child("benchmarks.indexes", "--child", "build", *arguments)
            result |= child("benchmarks.indexes", "--child", "open", *arguments)
        except subprocess.CalledProcessError as error:
            # The others are still worth measuring; another run tries this one again.
            print(f"{name}: FAILED with status {error.returncode}, what it said stands above")
            continue
        finally:
            saved_at(data.folder, candidate).unlink(missing_ok=True)
        result |= {"when": time.strftime("%Y-%m-%d %H:%M"), "load": load()}
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        found[name] = result
    return found


# ---- what is compared --------------------------------------------------------------------------------------------


def compare_indexes(data: Data, found: dict[str, dict]) -> None:
    if not found:
        return
    show(data, found)
    rows = {name: sufficient(pd.DataFrame(result["rows"]), ENOUGH) for name, result in found.items()}
    trees = {
        name: pd.DataFrame(result["rows"])
        for name, result in found.items()
        if name.startswith("annoy") and name != "annoy-manhattan"
    }
    for name, row in rows.items():
        if name in REFERENCES:
            continue
        print(f"{name}: {_kept(row['recall'] >= ENOUGH)} recall@{K} {row['recall']:.3f} (wished {ENOUGH} or more)")
        # What is wished is wished of a million: among few vectors there is little to save.
        wished = (20, 5) if row["count"] >= MILLION else (None, None)
        if "exact" in rows:
            _ratio("times as fast as exact:cosine, one query", rows["exact"], row, wished[0])
        annoy = {spec: at for spec, sweep in trees.items() if (at := milliseconds_at(sweep, row["recall"])) is not None}
        if annoy:
            best = min(annoy, key=annoy.get)
            _ratio(f"times as fast as {best} at that recall", {"milliseconds": annoy[best]}, row, wished[1])
        elif trees:
            print("  no forest of Annoy has that recall")
        peak, opened = found[name]["peak"], found[name]["open_seconds"]
        if peak is not None:
            print(f"  {_kept(peak <= 6e9)} built in {peak / 1e9:.2f} GB (wished 6 or less)")
        print(f"  {_kept(opened < 2)} opened memory-mapped in {opened:.3f} s (wished below 2)")


def compare_published(data: Data, found: dict[str, dict]) -> None:
    if found:
        show(data, found)
    if "published" not in found:
        return
    theirs = found["published"]
    print(
        f"The published system has a million vectors, 0.2 to 1.5 s a query after a start of 23 s; these are "
        f"{theirs['rows'][0]['count']:,}. Its recall is of the nearest by Manhattan distance, that of the others by "
        "cosine."
    )
    for name, result in found.items():
        if name != "published":
            row = sufficient(pd.DataFrame(result["rows"]), ENOUGH)
            print(f"{name}: recall@{K} {row['recall']:.3f} against {theirs['rows'][0]['recall']:.3f}")
            _ratio("times as fast, one query", theirs["rows"][0], row)
            print(f"  {theirs['open_seconds'] / result['open_seconds']:.1f} times as quick to open")


def compare_exact(data: Data, rounds: int = 5) -> None:
    """In one process and by turns, so that what else the computer does meets both.

    Not query by query: the threads of one library wait a while for more work, and are in the way of the other's.
    """
    indexes = [open_index(spec).add(data.vectors) for spec in ("exact:cosine", "faiss:flat")]
    queries = data.queries
    print(f"{data.label}; {conditions()}")
    for what, asked in (
        ("one query", [queries[row : row + 1] for row in range(min(20, len(queries)))]),
        ("a batch of 100", [queries[:100]] * 3),
    ):
        spent: list[list[float]] = [[], []]
        for _ in range(rounds):
            for index, times in zip(indexes, spent, strict=True):
                index.search(asked[0], K)
                times += [_milliseconds(index, query) for query in asked]
        (ours, theirs), (our_least, their_least) = map(np.median, spent), map(min, spent)
        print(
            f"  {what}: exact:cosine {ours:.2f} ms, faiss:flat {theirs:.2f} ms (medians), "
            f"least {our_least:.2f} and {their_least:.2f}"
        )
        ratio, by_least = ours / theirs, our_least / their_least
        print(f"  {_kept(ratio <= 1.3)} {ratio:.2f} times as long (wished 1.3 or less); by the least {by_least:.2f}")


def _milliseconds(index, queries: np.ndarray) -> float:
    start = time.perf_counter()
    index.search(queries, K)
    return 1000 * (time.perf_counter() - start)


def show(data: Data, found: dict[str, dict]) -> None:
    print(f"{data.label}; {conditions()}")
    lines = []
    for name, result in found.items():
        row = sufficient(pd.DataFrame(result["rows"]), ENOUGH)
        lines.append(
            {
                "index": name,
                "spec": row["spec"],
                "recall@10": f"{row['recall']:.3f}",
                "ms": f"{row['milliseconds']:.3f}",
                "ms 95 %": f"{row['milliseconds95']:.3f}",
                "queries/s": f"{row['per_second']:.0f}",
                "MB": f"{row['megabytes']:.0f}",
                "build s": f"{result['build_seconds']:.1f}",
                "build peak GB": "?" if result["peak"] is None else f"{result['peak'] / 1e9:.2f}",
                "save s": f"{result['save_seconds']:.2f}",
                "open s": f"{result['open_seconds']:.3f}",
                "load": result["load"],
                "measured": result["when"],
            }
        )
    print(pd.DataFrame(lines).to_string(index=False))


def table(data: Data, found: dict[str, dict]) -> pd.DataFrame:
    """One line an index at one effort: ``gallery, index, build_seconds, peak, open_seconds`` and `Measurement`."""
    kind = "REAL" if "REAL" in data.label else "SYNTHETIC"
    lines = []
    for name, result in found.items():
        for row in result["rows"]:
            about = {"gallery": f"{row['count']:,} {kind}", "index": name}
            lines.append(about | {each: result[each] for each in ("build_seconds", "peak", "open_seconds")} | row)
    return pd.DataFrame(lines)


def conditions() -> str:
    return f"{os.cpu_count()} cores, up to {threads()} threads a query, load {load()}"


def load() -> str:
    """How busy the computer is, with this and with other things."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _ratio(what: str, slow: Mapping, quick: Mapping, wished: float | None = None) -> None:
    ratio = slow["milliseconds"] / quick["milliseconds"]
    kept = f"{_kept(ratio >= wished)} " if wished else ""
    print(f"  {kept}{ratio:.1f} {what}" + (f" (wished {wished} or more)" if wished else ""))


def _kept(kept: bool) -> str:
    return "kept:" if kept else "MISSED:"


# ---- the recipe --------------------------------------------------------------------------------------------------


def compare_recipe() -> None:
    """Real vectors against as many synthetic ones that are made from a part of them, for the same real queries."""
    real = real_vectors()
    held_out = min(500, len(real) // 5)
    rest, queries = of_dim(real[held_out:], real[:held_out], 256)
    kinds = {"real": rest}
    for part in (2, 4, 8):
        kinds[f"SYNTHETIC from 1/{part}"] = np.concatenate(list(synthesize(rest[: len(rest) // part], len(rest), SEED)))
    print(f"{len(rest):,} vectors of 256 numbers each, {held_out} real queries; Euclidean distance of unit vectors")
    lines = []
    for name, vectors in kinds.items():
        truth = exact_truth(vectors, queries, 100, cache=False)
        distances = np.sqrt(np.maximum(2 - 2 * truth.scores, 1e-12))
        line = {"vectors": name}
        for rank in (1, 10, 100):
            low, middle, high = np.quantile(distances[:, rank - 1], (0.1, 0.5, 0.9))
            line[f"distance {rank}: 10 % · half · 90 %"] = f"{low:.3f} · {middle:.3f} · {high:.3f}"
        line |= {f"dimension of {k}": f"{intrinsic_dimension(distances[:, :k]):.1f}" for k in (20, 100)}
        lists = open_index("faiss:ivf").add(vectors)
        for probes in (1, 4, 16):
            found = lists.tune(probes=probes).search(queries, K)
            line[f"ivf, {probes} probes"] = f"{recalls(found, truth, K).mean():.3f}"
        graph = open_index("faiss:hnsw?m=8&construction=40").add(vectors)
        for width in (10, 40):
            found = graph.tune(search=width).search(queries, K)
            line[f"hnsw, {width} wide"] = f"{recalls(found, truth, K).mean():.3f}"
        lines.append(line)
    print(pd.DataFrame(lines).set_index("vectors").T.to_string())


def intrinsic_dimension(distances: np.ndarray) -> float:
    """Median over queries of the local dimension by distances (q, k), rising: Levina & Bickel 2004, "Maximum likelihood
    estimation of intrinsic dimension"."""
    return float(np.median(1 / np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)))


if __name__ == "__main__":
    main()
