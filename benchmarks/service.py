"""The service under load: 32 clients that upload photographs without a pause, compared with the extractor alone.

    python -m benchmarks.service
    python -m benchmarks.service --seconds 10 --gallery 200

ResNet50 over 1,400 images, served by a warm ``lookalike serve`` in one process. The clients run in another process and
use HTTP over plain sockets, which needs little processor time. The benchmark prints

- the extractor's rate on the same images in the same run, before and after the load: from files with ``extract``
  (decoding overlaps with computing), and decoded first, then with ``extract_arrays``
- the throughput of the service, divided by the better rate of the extractor
- the duration of searches by upload, and by id: under this load, and without it
- the duration of a search by upload without load, divided by that of decoding and extracting the same image alone:
  with ``extract_arrays``, which computes an image on one core, and after ``expect_single_images``, as the service
  extracts a single upload on all cores
- all responses other than 200 and 429
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.inputs import conditions, real_images
from benchmarks.processes import child, system_load
from helpers import paths
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.loopback import reserved_port
from helpers.search.engine import Engine

_SERVER = (
    "import sys; from helpers.service.server import run; run(sys.argv[1], port=int(sys.argv[2]), log_level='warning')"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extractor", default="resnet50")
    parser.add_argument("--gallery", type=int, default=1400, help="images in the gallery")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--extracted", type=int, default=320, help="images for the extractor's rate")
    parser.add_argument("--load", nargs=3, metavar=("HOST", "PORT", "FILES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        host, port, files = options.load
        print(json.dumps(asyncio.run(load(host, int(port), Path(files).read_text().splitlines(), options))))
        return
    images = real_images(options.gallery)
    print(f"{options.extractor}: {conditions(images)}")
    extractor = open_extractor(options.extractor)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "own.index"
        Engine(extractor).fit(images).save(folder)
        sent = images.subset(np.linspace(0, len(images) - 1, min(options.extracted, len(images))).astype(int))
        before = extractor_rates(extractor, sent)
        with served(folder) as port:
            results = clients(port, sent, options)
            alone = by_id_alone(port, len(images))
            # A second extractor, because the rates are those of the first one.
            single = open_extractor(options.extractor)
            single.expect_single_images()
            one = one_by_one(port, [extractor, single], sent)
        after = extractor_rates(extractor, sent)
    report(options, before, after, results, alone, one)


def extractor_rates(extractor: FeatureExtractor, images: ImageSet) -> tuple[float, float]:
    """Images per second with ``extract`` from files, and with ``extract_arrays`` after decoding."""
    start = time.perf_counter()
    extractor.extract(images, cache=False, progress=False)
    middle = time.perf_counter()
    for first in range(0, len(images), extractor.batch_size):
        extractor.extract_arrays([read_image(path) for path in images.paths[first : first + extractor.batch_size]])
    return len(images) / (middle - start), len(images) / (time.perf_counter() - middle)


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of a warm service."""
    with reserved_port() as port:
        process = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder), str(port)], cwd=paths.ROOT)
        try:
            end = time.monotonic() + 120
            while asyncio.run(once(port, "GET /ready")) != 200:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the service did not start; see its output above")
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def clients(port: int, images: ImageSet, options: argparse.Namespace) -> dict:
    """The results of the process of the clients."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as files:
        files.write("\n".join(map(str, images.paths)))
        files.flush()
        return child(
            "benchmarks.service", "--load", "127.0.0.1", str(port), files.name,
            "--clients", str(options.clients), "--seconds", str(options.seconds), "--gallery", str(options.gallery),
        )  # fmt: skip


async def load(host: str, port: int, files: list[str], options: argparse.Namespace) -> dict:
    """Uploads by many clients, and searches by id by another one."""
    bodies = [multipart(Path(file).read_bytes()) for file in files]
    head = f"POST /v1/search?k=20 HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    uploads = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    by_id = [f"GET /v1/search/id/{id}?k=20 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for id in range(options.gallery)]
    statuses: Counter[int] = Counter()
    upload_times: list[float] = []
    id_times: list[float] = []
    start = time.perf_counter()
    # The first second is a warm-up.
    begin, end = start + 1, start + 1 + options.seconds

    async def client(number: int, requests: list[bytes], times: list[float], pause: float) -> None:
        rng = random.Random(number)
        reader, writer = await asyncio.open_connection(host, port)
        while (now := time.perf_counter()) < end:
            status = await exchange(reader, writer, rng.choice(requests))
            done = time.perf_counter()
            if begin <= done <= end:
                statuses[status] += 1
                if status == 200:
                    times.append(done - now)
            await asyncio.sleep(1 if status == 429 else pause)
        writer.close()

    jobs = [client(number, uploads, upload_times, 0) for number in range(options.clients)]
    await asyncio.gather(*jobs, client(options.clients, by_id, id_times, 0.1))
    return {"statuses": statuses, "uploads": upload_times, "by_id": id_times, "seconds": options.seconds}


def multipart(content: bytes) -> bytes:
    """A form with one file."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request over an open connection and return the status."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split(b" ", 2)[1])


async def once(port: int, request: str) -> int | None:
    """The status of one request, or None if no server listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status = await exchange(reader, writer, f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        writer.close()
        return status
    except OSError:
        return None


def by_id_alone(port: int, count: int) -> list[float]:
    """Seconds of searches by id, one after another."""

    async def search() -> list[float]:
        times, rng = [], random.Random(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(500):
            start = time.perf_counter()
            request = f"GET /v1/search/id/{rng.randrange(count)}?k=20 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            assert await exchange(reader, writer, request.encode()) == 200
            times.append(time.perf_counter() - start)
        writer.close()
        return times

    return asyncio.run(search())


def one_by_one(port: int, extractors: list[FeatureExtractor], images: ImageSet) -> list[list[float]]:
    """Seconds of searches by upload without load, and of each extractor alone, in turns on the same images."""
    times: list[list[float]] = [[] for _ in range(1 + len(extractors))]

    async def search(content: bytes) -> float:
        body = multipart(content)
        head = "POST /v1/search?k=20 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.perf_counter()
        assert await exchange(reader, writer, request) == 200
        seconds = time.perf_counter() - start
        writer.close()
        return seconds

    for path in images.paths[:100]:
        times[0].append(asyncio.run(search(path.read_bytes())))
        for extractor, spent in zip(extractors, times[1:], strict=True):
            start = time.perf_counter()
            extractor.extract_arrays([read_image(path)])
            spent.append(time.perf_counter() - start)
    # The first ones are a warm-up.
    return [each[10:] for each in times]


def report(
    options: argparse.Namespace, before: tuple[float, float], after: tuple[float, float], results: dict,
    alone: list[float], one: list[list[float]],
) -> None:  # fmt: skip
    """Print the results.

    before, after : of `extractor_rates`. results : of `load`. alone : of `by_id_alone`. one : of `one_by_one`.
    """
    files, arrays = (max(pair) for pair in zip(before, after, strict=True))
    rate = len(results["uploads"]) / results["seconds"]
    for name, pair in (("from files", (before[0], after[0])), ("decoded, then extracted", (before[1], after[1]))):
        print(f"  the extractor, {name:24} {pair[0]:6.1f} images/s before the load, {pair[1]:6.1f} after")
    print(f"  the service, {options.clients} clients for {options.seconds:g} s   {rate:6.1f} images/s")
    print(f"  that is {rate / files:.0%} of the extractor's rate from files, {rate / arrays:.0%} without decoding")
    for name, times in (
        ("by upload", results["uploads"]),
        ("by id, under load", results["by_id"]),
        ("by id, no load", alone),
        ("by upload, no load", one[0]),
        ("the extractor alone", one[1]),
        ("... on all cores", one[2]),
    ):
        p50, p99 = 1000 * median(times), 1000 * float(np.percentile(times, 99))
        print(f"  {name:20} p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   ({len(times)} searches)")
    upload, alone_ms, all_cores = map(median, one)
    print(f"  a search by upload takes {upload / alone_ms:.2f} times the extraction, ", end="")
    print(f"{upload / all_cores:.2f} times that on all cores (medians)")
    failed = {status: count for status, count in results["statuses"].items() if status not in ("200", "429")}
    print(f"  status 429: {results['statuses'].get('429', 0)}; other errors: {failed or 'none'}")
    print(f"  load average afterwards: {system_load()}")


if __name__ == "__main__":
    main()
