"""Recall, time and memory of the indexes at scale, on real and on synthetic vectors.

    python -m benchmarks.indexes --real          all real vectors, about ten thousand
    python -m benchmarks.indexes                 one million vectors of 256 numbers; --count 100000 for fewer
    python -m benchmarks.indexes --exact         exact:cosine and FAISS's flat index, 100,000 vectors of 2048 numbers
    python -m benchmarks.indexes --published     Annoy with Manhattan distance, 30 trees and 4096 numbers, and graphs
    python -m benchmarks.indexes --targets       a million vectors: the recommended index, the same graph called through
                                                 FAISS alone, exact search, and Annoy; all measured anew
    python -m benchmarks.indexes --recipe        synthetic vectors compared with as many real ones
    python -m benchmarks.indexes --only hnsw annoy-30
    python -m benchmarks.indexes --table FILE    also write all measurements, one row per index and effort

Real vectors are ResNet50's vectors of all images of all data sets, without duplicates. 256 numbers are the coordinates
on their principal axes, which are learned without the queries. The queries are real images that are used for nothing
else. `helpers.lessons.synthetic_vectors` generates the synthetic vectors; the output marks what was measured with them.

Each index is built in its own process. The peak memory of this process (VmHWM) after building includes Python, the
libraries and the vectors, which are mapped from a file. The index is then measured at increasing efforts, until it
reaches a recall of 0.99 or three more efforts improve the recall by less than 0.001. It is saved, and another process
opens it memory-mapped. The system still has the new file in memory, so the time to open it does not include a slow
disk. Each call searches for one query, with the default number of threads of the library.

Measurements are kept in the folder ``benchmarks/indexes`` of the cache. An interrupted run continues there, and prints
when the earlier results were measured; ``--again`` repeats all of them.

``--targets`` measures a few efforts of four indexes, one after the other in one run, and prints whether the
recommended index reaches its targets. Its table has one row per index.

The published system keeps a million vectors of 4096 numbers. They take 16 GB, and Annoy's file takes as much again, so
the default here is 50,000 vectors; ``--count`` sets a larger number, if memory and disk suffice (three times the
vectors). Its vectors come from VGG16, behind a ReLU: they have no negative number and many zeros. The vectors
here are similar: 4096 activations of ResNet50's last feature map.
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

from benchmarks import targets
from benchmarks.processes import child, peak_memory, system_load
from benchmarks.targets import verdict
from helpers import paths
from helpers.lessons import synthetic_check
from helpers.lessons.index_measurement import build, exact_truth, measure, milliseconds_at, sufficient, threads
from helpers.lessons.index_tuning import Candidate
from helpers.lessons.synthetic_vectors import BLOCK, SyntheticVectors, synthesize
from helpers.search.index import Index, load_index, open_index
from helpers.search.ranking import Ranking

K = 10
#: An index needs the recall `ENOUGH`; higher efforts are measured up to the recall `PLENTY`.
ENOUGH, PLENTY = 0.95, 0.99
SEED = 0
#: Random parts of the real vectors for each growth of the recipe.
SUBSETS = 3
#: Default numbers of vectors.
MILLION, FOR_EXACT, FOR_PUBLISHED = 1_000_000, 100_000, 50_000

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
#: Indexes without targets.
REFERENCES = ("exact", "sklearn", "flat", "pq", "annoy-10", "annoy-30", "annoy-100", "annoy-manhattan")
#: The published system with its default settings, and graphs that find the same images.
PUBLISHED = {
    "published": Candidate("annoy:manhattan?trees=30"),
    "usearch-f16": Candidate("usearch:cosine?dtype=f16", _USEARCH),
    "hnsw-f16": Candidate("faiss:hnsw?m=32&storage=float16", _GRAPH),
}


@dataclass(frozen=True)
class Data:
    """Vectors and queries on disk.

    folder : contains ``vectors.npy``, ``queries.npy``, ``truth-*.npz`` and results. label : a description.
    """

    folder: Path
    label: str

    @property
    def vectors(self) -> np.ndarray:
        """float32 (n, dim), memory-mapped."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @property
    def queries(self) -> np.ndarray:
        """float32 (q, dim)."""
        return np.load(self.folder / "queries.npy")

    def truth(self, metric: str) -> Ranking:
        """The nearest neighbors by exact search, which are saved."""
        path = self.folder / f"truth-{metric}.npz"
        if not path.exists():
            log(f"exact search by {metric} for {len(self.queries)} queries …")
            found = exact_truth(self.vectors, self.queries, K, metric, cache=False)
            part = path.with_name(f".{path.name}.part.npz")
            np.savez(part, ids=found.ids, scores=found.scores)
            part.replace(path)
        with np.load(path) as stored:
            return Ranking(stored["ids"], stored["scores"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--real", action="store_true", help="only real vectors")
    mode.add_argument("--exact", action="store_true", help="compare exact:cosine with FAISS's flat index")
    mode.add_argument("--published", action="store_true", help="compare the published system with graphs")
    mode.add_argument("--targets", action="store_true", help="measure the recommended index beside three others anew")
    mode.add_argument("--recipe", action="store_true", help="compare synthetic vectors with real ones")
    parser.add_argument("--count", type=int, help="number of synthetic vectors")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"choose from {', '.join([*INDEXES, *PUBLISHED])}")
    parser.add_argument("--again", action="store_true", help="repeat earlier measurements")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write all measurements as CSV")
    parser.add_argument("--child", choices=("build", "open"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    candidates = PUBLISHED if options.published else targets.INDEXES if options.targets else INDEXES
    if options.child:
        task = {"build": build_one, "open": open_one}[options.child]
        print(json.dumps(task(candidates[options.only[0]], options.folder)))
        return
    unknown = set(options.only or ()) - set(candidates)
    if unknown:
        parser.error(f"unknown index {unknown.pop()}; choose from {', '.join(candidates)}")
    if options.only and options.targets:
        parser.error("--only does not work with --targets, which compares all of its indexes")
    if options.table and options.exact:
        parser.error("--table does not work with --exact")
    if options.count is not None and (options.real or options.recipe):
        parser.error("--count does not work with --real and --recipe")
    chosen = {name: candidates[name] for name in options.only or candidates}
    start = time.perf_counter()
    if options.recipe:
        rows = compare_recipe()
    elif options.targets:
        data = make_data(options.count or MILLION, 256)
        found = results(data, chosen, True, "--targets")
        show(data, found)
        rows = targets.compare(found)
    elif options.exact:
        compare_exact(make_data(options.count or FOR_EXACT, 2048))
    elif options.published:
        data = make_data(options.count or FOR_PUBLISHED, 4096, queries=100, activations=True)
        found = results(data, chosen, options.again, "--published")
        compare_published(data, found)
        rows = table(data, found)
    else:
        data = make_data(None if options.real else options.count or MILLION, 256)
        found = results(data, chosen, options.again)
        compare_indexes(data, found)
        rows = table(data, found)
    if options.table:
        rows.round(6).to_csv(options.table, index=False)
    print(f"took {(time.perf_counter() - start) / 60:.1f} min")


def log(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


# ---- vectors -----------------------------------------------------------------------------------------------------


def real_vectors() -> np.ndarray:
    """float32 (n, 2048): ResNet50's unit vectors of all images of all data sets, without duplicates, in fixed order.

    Without a mirror, only the sample is used, which is too small for conclusions.
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


def real_activations(dim: int) -> np.ndarray:
    """float32 (n, dim) of length one: some activations of ResNet50's last feature map, which follows a ReLU.

    They come from photographs, drawings and, with a mirror, Imagenette; `helpers.lessons.multi_stage` caches the maps.
    """
    from helpers.images import imagenet, samples
    from helpers.lessons.multi_stage import last_activations

    sets = [samples.with_distractors(), samples.drawings()]
    if paths.mirror_dir() is not None:
        sets.append(imagenet.imagenette())
    vectors = np.concatenate([last_activations(images, dim, SEED) for images in sets])
    return vectors[np.random.default_rng(SEED).permutation(len(vectors))]


def of_dim(vectors: np.ndarray, queries: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the dimension of both by PCA of the vectors, without whitening: distances change by the dropped axes only.

    The same dimension changes nothing.
    """
    from helpers.features import projection

    if dim == vectors.shape[1]:
        return vectors, queries
    project = projection.learn(vectors, dim, "all real images but the queries", whitening=0)
    return project(vectors), project(queries)


def make_data(count: int | None, dim: int, queries: int = 500, activations: bool = False) -> Data:
    """Write ``count`` synthetic vectors to disk, or all real ones if it is None, unless they exist.

    activations : of the last feature map, instead of its mean over all positions.
    """
    real = real_activations(dim) if activations else real_vectors()
    held_out = min(queries, len(real) // 5)
    query_vectors, rest = real[:held_out], real[held_out:]
    recipe = f"{synthesize.__kwdefaults__} {synthesize.__defaults__}"
    digest = hashlib.blake2b(f"{count} {dim} {held_out} {activations} {recipe}".encode())
    digest.update(np.ascontiguousarray(real).data)
    many = "real" if count is None else count
    folder = paths.cache_dir() / "benchmarks" / "indexes" / f"{many}x{dim}-{digest.hexdigest()[:12]}"
    about = folder / "label.txt"
    if not about.exists():
        log(f"making {many} vectors of {dim} numbers in {folder} …")
        folder.mkdir(parents=True, exist_ok=True)
        rest, query_vectors = of_dim(rest, query_vectors, dim)
        synthetic = None if count is None else synthesize(rest, count, SEED, activations)
        np.save(folder / "queries.npy", query_vectors)
        _write(folder / "vectors.npy", rest if synthetic is None else synthetic)
        # This file is written last: it shows that the folder is complete.
        about.write_text(
            f"{len(rest):,} REAL vectors of {dim} numbers" if synthetic is None else str(synthetic), encoding="utf-8"
        )
    return Data(folder, f"{about.read_text(encoding='utf-8')}, {held_out} other real queries")


def _write(path: Path, vectors: np.ndarray | SyntheticVectors) -> None:
    if isinstance(vectors, np.ndarray):
        np.save(path, vectors)
        return
    room = shutil.disk_usage(path.parent).free
    if room < 4.5 * vectors.count * vectors.dim:
        raise SystemExit(f"{path.parent} has {room / 1e9:.1f} GB free, which is not enough: choose a smaller --count")
    file = np.lib.format.open_memmap(path, "w+", np.float32, (vectors.count, vectors.dim))
    for number, block in enumerate(vectors):
        file[number * BLOCK : number * BLOCK + len(block)] = block
        if number % 25 == 24:
            log(f"  {(number + 1) * BLOCK:,} of {vectors.count:,} synthetic vectors")
    file.flush()


# ---- one index, in its own process -------------------------------------------------------------------------------


def build_one(candidate: Candidate, folder: Path) -> dict:
    """Build, measure and save an index."""
    data = Data(folder, "")
    vectors, queries = data.vectors, data.queries
    before = peak_memory()
    index, seconds = build(candidate.spec, vectors)
    peak = peak_memory()
    log(f"  built in {seconds:.1f} s")
    rows, truth = [], data.truth(index.metric)
    for effort in candidate.efforts:
        measured = measure(index.tune(**effort), queries, truth, K)
        rows.append(measured.row())
        log(f"  {measured.spec}: recall@{K} {measured.recall:.4f}, {measured.milliseconds:.3f} ms")
        if measured.recall >= PLENTY or (len(rows) > 3 and rows[-1]["recall"] - rows[-4]["recall"] < 0.001):
            break
    # Save the index with the smallest sufficient effort.
    index.tune(**candidate.efforts[sufficient(pd.DataFrame(rows), ENOUGH).name])
    raw = targets.raw_times(index, queries) if candidate == targets.INDEXES[targets.RECOMMENDED] else {}
    start = time.perf_counter()
    index.save(saved_at(folder, candidate))
    return raw | {
        "build_seconds": seconds,
        "peak_before": before,
        "peak": peak,
        "rows": rows,
        "save_seconds": time.perf_counter() - start,
        "file_bytes": saved_at(folder, candidate).stat().st_size,
    }


def open_one(candidate: Candidate, folder: Path) -> dict:
    """Open a saved index and search for one query."""
    query = Data(folder, "").queries[:1]
    # This imports the backend, which must not count as time to open the file.
    open_index(candidate.spec)
    start = time.perf_counter()
    index = load_index(saved_at(folder, candidate), mmap=True)
    opened = time.perf_counter() - start
    index.search(query, K)
    return {"open_seconds": opened, "first_result_seconds": time.perf_counter() - start, "open_peak": peak_memory()}


def saved_at(folder: Path, candidate: Candidate) -> Path:
    return folder / f"{_file_name(candidate)}.index"


def _file_name(candidate: Candidate) -> str:
    kept = "".join(letter if letter.isalnum() else "-" for letter in candidate.spec)
    return f"{kept}-{hashlib.sha256(repr(candidate).encode()).hexdigest()[:8]}"


def results(data: Data, candidates: dict[str, Candidate], again: bool, *flags: str) -> dict[str, dict]:
    """The measurements of each index, from its file if it was measured before."""
    found = {}
    for name, candidate in candidates.items():
        path = data.folder / f"{_file_name(candidate)}.json"
        if path.exists() and not again:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
            log(f"{name}: measured {found[name]['when']}")
            continue
        log(f"{name}: {candidate.spec} …")
        data.truth(open_index(candidate.spec).metric)
        arguments = (*flags, "--only", name, "--folder", str(data.folder))
        try:
            result = child("benchmarks.indexes", "--child", "build", *arguments)
            result |= child("benchmarks.indexes", "--child", "open", *arguments)
        except subprocess.CalledProcessError as error:
            # Continue with the other indexes; the next run repeats this one.
            print(f"{name}: FAILED with status {error.returncode}; see the messages above")
            continue
        finally:
            saved_at(data.folder, candidate).unlink(missing_ok=True)
        result |= {"when": time.strftime("%Y-%m-%d %H:%M"), "load": system_load()}
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        found[name] = result
    return found


# ---- comparisons -------------------------------------------------------------------------------------------------


def compare_indexes(data: Data, found: dict[str, dict]) -> None:
    """Print all measurements, and whether each index reaches its targets."""
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
        print(f"{name}: {verdict(row['recall'] >= ENOUGH)} recall@{K} {row['recall']:.3f} (target: {ENOUGH} or more)")
        # The targets for speed apply to a million vectors only: an index gains little on few vectors.
        of_exact, of_annoy = (20, 5) if row["count"] >= MILLION else (None, None)
        if "exact" in rows:
            _ratio("times as fast as exact:cosine, one query", rows["exact"], row, of_exact)
        annoy = {spec: at for spec, sweep in trees.items() if (at := milliseconds_at(sweep, row["recall"])) is not None}
        if annoy:
            best = min(annoy, key=lambda spec: annoy[spec])
            _ratio(f"times as fast as {best} at that recall", {"milliseconds": annoy[best]}, row, of_annoy)
        elif trees:
            print("  Annoy does not reach that recall")
        peak, opened = found[name]["peak"], found[name]["open_seconds"]
        if peak is not None:
            print(f"  {verdict(peak <= 6e9)} built in {peak / 1e9:.2f} GB (target: 6 or less)")
        print(f"  {verdict(opened < 2)} opened memory-mapped in {opened:.3f} s (target: below 2)")


def compare_published(data: Data, found: dict[str, dict]) -> None:
    """Print the measurements of the published system and of the graphs."""
    if found:
        show(data, found)
    if "published" not in found:
        return
    published = found["published"]
    first = published["rows"][0]
    print(
        "The published system has a million vectors and takes 0.2 to 1.5 s per query after a start of 23 s. Here it "
        f"has {first['count']:,}. Its recall refers to Manhattan distance, the recall of the others to cosine."
    )
    for name, result in found.items():
        if name != "published":
            row = sufficient(pd.DataFrame(result["rows"]), ENOUGH)
            print(f"{name}: recall@{K} {row['recall']:.3f} (published: {first['recall']:.3f})")
            _ratio("times as fast, one query", first, row)
            print(f"  {published['open_seconds'] / result['open_seconds']:.1f} times as fast to open")


def compare_exact(data: Data, rounds: int = 5) -> None:
    """Compare exact:cosine and faiss:flat in one process, in turn, so that other load affects both.

    They do not take turns after each query, because the threads of a library stay busy for a while after a call and
    slow down the other library.
    """
    indexes = [open_index(spec).add(data.vectors) for spec in ("exact:cosine", "faiss:flat")]
    queries = data.queries
    print(f"{data.label}; {conditions()}")
    for label, batches in (
        ("one query", [queries[row : row + 1] for row in range(min(20, len(queries)))]),
        ("a batch of 100", [queries[:100]] * 3),
    ):
        spent: list[list[float]] = [[], []]
        for _ in range(rounds):
            for index, times in zip(indexes, spent, strict=True):
                index.search(batches[0], K)
                times += [_milliseconds(index, query) for query in batches]
        (ours, theirs), (our_min, their_min) = map(np.median, spent), map(min, spent)
        print(
            f"  {label}: exact:cosine {ours:.2f} ms, faiss:flat {theirs:.2f} ms (medians), "
            f"minima {our_min:.2f} and {their_min:.2f}"
        )
        ratio, of_minima = ours / theirs, our_min / their_min
        print(f"  {verdict(ratio <= 1.3)} {ratio:.2f} times as long (target: 1.3 or less); minima: {of_minima:.2f}")


def _milliseconds(index: Index, queries: np.ndarray) -> float:
    start = time.perf_counter()
    index.search(queries, K)
    return 1000 * (time.perf_counter() - start)


def show(data: Data, found: dict[str, dict]) -> None:
    """Print one row per index, at the smallest sufficient effort."""
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
    """One row per index and effort: ``gallery, index, build_seconds, peak, open_seconds``, and fields of `Measured`."""
    kind = "REAL" if "REAL" in data.label else "SYNTHETIC"
    lines = []
    for name, result in found.items():
        for row in result["rows"]:
            about = {"gallery": f"{row['count']:,} {kind}", "index": name}
            lines.append(about | {each: result[each] for each in ("build_seconds", "peak", "open_seconds")} | row)
    return pd.DataFrame(lines)


def conditions() -> str:
    return f"{os.cpu_count()} cores, up to {threads()} threads per query, load {system_load()}"


def _ratio(label: str, slow: Mapping, fast: Mapping, target: float | None = None) -> None:
    ratio = slow["milliseconds"] / fast["milliseconds"]
    prefix = f"{verdict(ratio >= target)} " if target else ""
    print(f"  {prefix}{ratio:.1f} {label}" + (f" (target: {target} or more)" if target else ""))


# ---- recipe ------------------------------------------------------------------------------------------------------


def compare_recipe() -> pd.DataFrame:
    """Compare real vectors with as many synthetic ones, made from a part of them, for the same real queries.

    The growth is 2, 8, and that of a million vectors. Returns the rows of `synthetic_check.compare`.
    """
    real = real_vectors()
    held_out = min(500, len(real) // 5)
    rest, queries = of_dim(real[held_out:], real[:held_out], 256)
    rows = synthetic_check.compare(rest, queries, (2, 8, round(MILLION / len(rest))), SUBSETS, SEED)
    print(f"{len(rest):,} vectors of 256 numbers each, {held_out} real queries; Euclidean distance of unit vectors")
    print(synthetic_check.table(rows).to_string())
    return rows


if __name__ == "__main__":
    main()
