"""The time of each `lookalike` command on a small engine, relative to an empty Python program.

    python -m benchmarks.startup
    python -m benchmarks.startup --times 11 --images 300
    python -m benchmarks.startup --imports "search new-0.jpg -e resnet50.engine"

The last line lists the slowest imports of a command instead.

Each command runs in a new process, in several rounds of all commands. The output shows the median time from start to
exit with its range, the median processor time (user and system, all threads), and the ratio of the median to that of
``python -c pass``. The engines contain photographs of the sample. They are in a temporary folder, like the cache of
vectors. Each round searches for, adds and removes other files.

- search, resnet50: the image is new, so the network is loaded and extracts its vector
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
    parser.add_argument("--images", type=int, default=100, help="images in each engine; default: %(default)s")
    parser.add_argument("--imports", metavar="COMMAND", help="list the slowest imports of one command instead")
    options = parser.parse_args()
    images = samples.photos()
    images = images.subset(range(min(options.images, len(images) - 1)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "photos").mkdir()
        for row, path in enumerate(images.paths):
            shutil.copy(path, folder / "photos" / f"{row:04}{path.suffix}")
        environment = os.environ | {"LOOKALIKE_CACHE": str(own_cache(folder)), "PYTHONPATH": str(paths.ROOT)}
        for features in FEATURES:
            call(["index", "photos", "-x", features, "-o", f"{features}.engine"], folder, environment)
        if options.imports:
            new_image(folder, 0)
            list_imports(shlex.split(options.imports), folder, environment)
        else:
            print(f"{len(FEATURES)} engines: {conditions(images)}; {options.times} rounds")
            measure(options.times, folder, environment)


def own_cache(folder: Path) -> Path:
    """A cache without vectors, with the weights and compiled networks of the default cache."""
    cache = folder / "cache"
    cache.mkdir()
    for name in ("weights", "compiled"):
        shared = paths.cache_dir() / name
        shared.mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(shared)
    return cache


def new_image(folder: Path, number: int) -> None:
    """Write a new photograph: bytes behind the end of a JPEG change the hash of the file, but no pixel."""
    (folder / f"new-{number}.jpg").write_bytes(samples.photos().paths[-1].read_bytes() + number.to_bytes(4, "big"))


def commands(number: int) -> Iterator[tuple[str, list[str]]]:
    """The label and the arguments of each command in a round."""
    new = f"new-{number}.jpg"
    yield "--help", ["--help"]
    yield "extractors", ["extractors"]
    yield "backends", ["backends"]
    for features in FEATURES:
        yield f"search, {features}", ["search", new, "-e", f"{features}.engine"]
    yield "search again, resnet50", ["search", new, "-e", "resnet50.engine"]
    yield "add, hsv-histogram", ["add", new, "-e", "hsv-histogram.engine"]
    yield "remove, resnet50", ["remove", str(number), "-e", "resnet50.engine"]
    yield "compact, resnet50", ["compact", "-e", "resnet50.engine"]


def measure(rounds: int, folder: Path, environment: dict[str, str]) -> None:
    """Print one line per command. A first round, which reads the files from disk, is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        new_image(folder, number)
        for name, arguments in commands(number):
            seconds = call(arguments, folder, environment)
            if number:
                spent.setdefault(name, []).append(seconds)
        seconds = call(None, folder, environment)
        if number:
            spent.setdefault(EMPTY, []).append(seconds)
    empty = median(seconds for seconds, _ in spent[EMPTY])
    print(f"  {'':24} {'median':>8} {'min':>8} {'max':>8} {'processor':>10}   times {EMPTY}")
    for name, times in spent.items():
        seconds, processor = zip(*times, strict=True)
        print(
            f"  {name:24} {median(seconds):6.2f} s {min(seconds):6.2f} s {max(seconds):6.2f} s "
            f"{median(processor):8.2f} s   {median(seconds) / empty:.1f}"
        )


def call(arguments: list[str] | None, folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command, or an empty program for None, and return its wall time and processor time in seconds.

    Raises
    ------
    RuntimeError : it failed; the message contains its standard error.
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
    """Print the 25 slowest imports of a command in milliseconds, including the imports that each one triggers."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "helpers.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")][1:]
    for _, total, module in sorted(lines, key=lambda line: -int(line[1]))[:25]:
        print(f"{int(total) / 1000:8.1f}  {module.strip()}")


if __name__ == "__main__":
    main()
