"""How long each command of `lookalike` takes on a small engine, against an empty Python program.

    python -m benchmarks.startup
    python -m benchmarks.startup --times 11 --images 300
    python -m benchmarks.startup --imports "search new-0.jpg -e resnet50.index"

The last line lists the slowest imports of one command instead.

Every command runs in a fresh process, several rounds of all commands one after the other. Printed are the median time
from start to exit with its range, the median processor time (user and system, of all threads), and the ratio of the
median to that of ``python -c pass``. The engines hold photographs of the sample and are made in a temporary folder,
as is the cache of vectors. Each round searches for, adds and removes other files.

- search, resnet50: the image is new, so the network is loaded and computes its vector
- search again, resnet50: the vector is in the cache, so no network is loaded
- remove, compact: on the engine of resnet50, each after a change
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.inputs import conditions
from helpers import paths
from helpers.images import samples

EMPTY = "python -c pass"
FEATURES = ("hsv-histogram", "resnet50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="rounds of all commands; default: %(default)s")
    parser.add_argument("--images", type=int, default=100, help="in each engine; default: %(default)s")
    parser.add_argument("--imports", metavar="COMMAND", help="list the slowest imports of one command instead")
    asked = parser.parse_args()
    images = samples.photos()
    images = images.subset(range(min(asked.images, len(images) - 1)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photos").mkdir()
        for row, path in enumerate(images.paths):
            shutil.copy(path, folder / "photos" / f"{row:04}{path.suffix}")
        environment = os.environ | {"LOOKALIKE_CACHE": str(own_cache(folder)), "PYTHONPATH": str(paths.ROOT)}
        for features in FEATURES:
            call(["index", "photos", "-d", features, "-o", f"{features}.index"], folder, environment)
        if asked.imports:
            new_image(folder, 0)
            list_imports(shlex.split(asked.imports), folder, environment)
        else:
            print(f"{len(FEATURES)} engines: {conditions(images)}; {asked.times} rounds")
            measure(asked.times, folder, environment)


def own_cache(folder: Path) -> Path:
    """A cache without vectors, with the weights and compiled networks of the usual one."""
    cache = folder / "cache"
    cache.mkdir()
    for name in ("weights", "compiled"):
        shared = paths.cache_dir() / name
        shared.mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(shared)
    return cache


def new_image(folder: Path, number: int) -> None:
    """Write a photograph that no engine and no cache knows: bytes behind a JPEG's end change the file's hash only."""
    (folder / f"new-{number}.jpg").write_bytes(samples.photos().paths[-1].read_bytes() + number.to_bytes(4, "big"))


def commands(number: int) -> Iterator[tuple[str, list[str]]]:
    """What is measured, in order: what a line calls it, and the arguments. ``number`` is that of the round."""
    new = f"new-{number}.jpg"
    yield "--help", ["--help"]
    yield "extractors", ["extractors"]
    yield "indexes", ["indexes"]
    for features in FEATURES:
        yield f"search, {features}", ["search", new, "-e", f"{features}.index"]
    yield "search again, resnet50", ["search", new, "-e", "resnet50.index"]
    yield "add, hsv-histogram", ["add", "hsv-histogram.index", new]
    yield "remove, resnet50", ["remove", "resnet50.index", str(number)]
    yield "compact, resnet50", ["compact", "resnet50.index"]


def measure(times: int, folder: Path, environment: dict[str, str]) -> None:
    """Print one line a command. The round before the first is not counted: it reads the files from the disk."""
    spent: dict[str, list[tuple[float, float]]] = {}
    for number in range(times + 1):
        new_image(folder, number)
        for name, arguments in commands(number):
            found = call(arguments, folder, environment)
            if number:
                spent.setdefault(name, []).append(found)
        found = call(None, folder, environment)
        if number:
            spent.setdefault(EMPTY, []).append(found)
    empty = median(seconds for seconds, _ in spent[EMPTY])
    print(f"  {'':24} {'median':>8} {'least':>8} {'most':>8} {'processor':>10}   times {EMPTY}")
    for name, found in spent.items():
        seconds, processor = zip(*found, strict=True)
        print(
            f"  {name:24} {median(seconds):6.2f} s {min(seconds):6.2f} s {max(seconds):6.2f} s "
            f"{median(processor):8.2f} s   {median(seconds) / empty:.1f}"
        )


def call(arguments: list[str] | None, folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command (None: an empty program): seconds from start to exit, and seconds of the processor.

    Raises
    ------
    RuntimeError : it failed; the message is what it said.
    """
    program = ["-c", "pass"] if arguments is None else ["-m", "helpers.cli", *arguments]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *program], cwd=folder, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"{shlex.join(program)} failed: {done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def list_imports(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Print the 25 slowest imports of a command, with what each imports in turn, in milliseconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "helpers.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")][1:]
    for _, total, module in sorted(lines, key=lambda line: -int(line[1]))[:25]:
        print(f"{int(total) / 1000:8.1f}  {module.strip()}")


if __name__ == "__main__":
    main()
