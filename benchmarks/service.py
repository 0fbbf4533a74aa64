"""The service under load: 32 clients that upload photographs all the time, against the extractor by itself.

    python -m benchmarks.service
    python -m benchmarks.service --seconds 10 --gallery 200

ResNet50 over 1,400 images, served by ``lookalike serve`` in a process of its own, warm; the clients are one more
process, which speaks HTTP over plain sockets so as to take little of the processor. Printed are

- the extractor's own rate on the same images, measured in the same run, before and after the load: from files, as
  ``extract`` does it (decoding overlaps with computing), and decoded, then by ``extract_arrays``
- the service's throughput, over the extractor's better rate
- how long searches took by upload, and by id: under the same load, and with nothing else going on
- every answer that was neither 200 nor 429
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.inputs import conditions, real_images
from benchmarks.processes import child
from helpers import paths
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.search.engine import Engine

_SERVER = (
    "import sys; from helpers.service.server import run; run(sys.argv[1], port=int(sys.argv[2]), log_level='warning')"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extractor", default="resnet50")
    parser.add_argument("--gallery", type=int, default=1400, help="images that are searched")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--own", type=int, default=320, help="images on which the extractor's own rate is measured")
    parser.add_argument("--load", nargs=3, metavar=("HOST", "PORT", "FILES"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        host, port, files = asked.load
        print(json.dumps(asyncio.run(load(host, int(port), Path(files).read_text().splitlines(), asked))))
        return
    images = real_images(asked.gallery)
    print(f"{asked.extractor}: {conditions(images)}")
    by = open_extractor(asked.extractor)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "own.index"
        Engine(by).fit(images).save(folder)
        sent = images.subset(np.linspace(0, len(images) - 1, min(asked.own, len(images))).astype(int))
        before = own_rates(by, sent)
        with served(folder) as port:
            found = clients(port, sent, asked)
            alone = by_id_alone(port, len(images))
        after = own_rates(by, sent)
    report(asked, before, after, found, alone)


def own_rates(by: FeatureExtractor, images: ImageSet) -> tuple[float, float]:
    """Images a second by ``extract`` from files, and by ``extract_arrays`` after decoding."""
    start = time.perf_counter()
    by.extract(images, cache=False, progress=False)
    middle = time.perf_counter()
    for first in range(0, len(images), by.batch_size):
        by.extract_arrays([read_image(path) for path in images.paths[first : first + by.batch_size]])
    return len(images) / (middle - start), len(images) / (time.perf_counter() - middle)


@contextmanager
def served(folder: Path):
    """The port of a service that is warm."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder), str(port)], cwd=paths.ROOT)
    try:
        end = time.monotonic() + 120
        while asyncio.run(once(port, "GET /ready")) != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the service did not start; what it said stands above")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def clients(port: int, images: ImageSet, asked: argparse.Namespace) -> dict:
    """What the clients' process found."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as files:
        files.write("\n".join(map(str, images.paths)))
        files.flush()
        return child(
            "benchmarks.service", "--load", "127.0.0.1", str(port), files.name,
            "--clients", str(asked.clients), "--seconds", str(asked.seconds), "--gallery", str(asked.gallery),
        )  # fmt: skip


async def load(host: str, port: int, files: list[str], asked: argparse.Namespace) -> dict:
    """Uploads by many clients, and searches by id by one more, for so many seconds."""
    bodies = [multipart(Path(file).read_bytes()) for file in files]
    head = f"POST /api/search?k=20 HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    uploads = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    by_id = [f"GET /api/search/id/{id}?k=20 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for id in range(asked.gallery)]
    statuses, uploading, identifying = Counter(), [], []
    start = time.perf_counter()
    # What the first second holds is getting going, and counts nowhere.
    begin, end = start + 1, start + 1 + asked.seconds

    async def client(requests: list[bytes], times: list[float], pause: float) -> None:
        chance = random.Random(id(times) + len(asyncio.all_tasks()))
        reader, writer = await asyncio.open_connection(host, port)
        while (now := time.perf_counter()) < end:
            status = await exchange(reader, writer, chance.choice(requests))
            done = time.perf_counter()
            if begin <= done <= end:
                statuses[status] += 1
                if status == 200:
                    times.append(done - now)
            await asyncio.sleep(1 if status == 429 else pause)
        writer.close()

    jobs = [client(uploads, uploading, 0) for _ in range(asked.clients)]
    await asyncio.gather(*jobs, client(by_id, identifying, 0.1))
    return {"statuses": statuses, "uploads": uploading, "by_id": identifying, "seconds": asked.seconds}


def multipart(content: bytes) -> bytes:
    """A form with one file."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request over a connection that stays; the answer's status."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split(b" ", 2)[1])


async def once(port: int, request: str) -> int | None:
    """The status of one request, or None where nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status = await exchange(reader, writer, f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        writer.close()
        return status
    except OSError:
        return None


def by_id_alone(port: int, count: int) -> list[float]:
    """Seconds of searches by id, one after the other."""

    async def ask() -> list[float]:
        times, chance = [], random.Random(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(500):
            start = time.perf_counter()
            request = f"GET /api/search/id/{chance.randrange(count)}?k=20 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            assert await exchange(reader, writer, request.encode()) == 200
            times.append(time.perf_counter() - start)
        writer.close()
        return times

    return asyncio.run(ask())


def report(asked, before, after, found, alone) -> None:
    """All in words."""
    files, arrays = (max(pair) for pair in zip(before, after, strict=True))
    rate = len(found["uploads"]) / found["seconds"]
    for name, pair in (("from files", (before[0], after[0])), ("decoded, then described", (before[1], after[1]))):
        print(f"  the extractor, {name:24} {pair[0]:6.1f} images/s before the load, {pair[1]:6.1f} after")
    print(f"  the service, {asked.clients} clients for {asked.seconds:g} s   {rate:6.1f} images/s")
    print(f"  that is {rate / files:.0%} of the extractor's rate from files, {rate / arrays:.0%} of the other")
    for name, times in (
        ("by upload", found["uploads"]),
        ("by id, meanwhile", found["by_id"]),
        ("by id, nothing else", alone),
    ):
        p50, p99 = 1000 * median(times), 1000 * float(np.percentile(times, 99))
        print(f"  {name:20} p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   ({len(times)} searches)")
    failed = {status: count for status, count in found["statuses"].items() if status not in ("200", "429")}
    print(f"  sent away with 429: {found['statuses'].get('429', 0)}; other errors: {failed or 'none'}")
    if hasattr(os, "getloadavg"):
        print(f"  load average afterwards: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
