"""Several workers of one service: all find what one adds, and no acknowledged change is lost."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers import paths
from helpers.images import samples
from helpers.images.reading import read_image
from helpers.loopback import reserved_port
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.service.service_process import ServiceProcess

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux lists the children of a process in /proc"
    ),
]


@contextlib.contextmanager
def serving(folder, workers):
    """URL and process of ``lookalike serve``, once every worker is ready."""
    with reserved_port() as port:
        script = (
            "from helpers.service.server import run\n"
            f"if __name__ == '__main__': run({str(folder)!r}, port={port}, workers={workers}, log_level='warning')"
        )
        variables = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # A file, because a full pipe would block the server.
        log = folder.with_suffix(f".{workers}.log")
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-c", script], cwd=paths.ROOT, env=variables, stderr=output)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: ready(process, address) == workers, 90)
            yield address, process
        finally:
            process.terminate()
            process.wait(30)
        assert "Traceback" not in log.read_text(), log.read_text()


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.1)


def children(process):
    """Worker processes, without the resource tracker of multiprocessing."""
    found = []
    for line in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{line}/cmdline").read_bytes():
                found.append(int(line))
    return found


def ready(process, address):
    """Number of ready workers."""
    assert process.poll() is None, "the server ended"
    with contextlib.suppress(httpx.TransportError):
        metrics = httpx.get(f"{address}/metrics", timeout=2).text
        found = re.search(r"^lookalike_workers (\S+)$", metrics, re.M)
        return float(found[1]) if found else 0
    return 0


def image(number):
    """An image unlike all others."""
    colors = np.random.default_rng(number % 2**32).integers(0, 256, (8, 8, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(colors.repeat(8, 0).repeat(8, 1)).save(written, "PNG")
    return written.getvalue()


def send(address, content, route="/v1/images", **parameters):
    return httpx.post(address + route, files={"image": ("x", content)}, params=parameters, timeout=20)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An engine folder, the URL of two workers that serve it, and their parent process."""
    folder = tmp_path_factory.mktemp("served") / "own.index"
    Engine("hsv-histogram").fit(samples.photos().subset(range(40))).save(folder)
    with serving(folder, 2) as (address, process):
        yield folder, address, process


def test_after_a_kill_the_port_is_free_even_with_large_workers(tmp_path, monkeypatch):
    """A listening process of a gigabyte frees its memory before its port."""
    service = ServiceProcess(tmp_path, workers=2)
    port = int(service.url.rsplit(":")[-1])
    worker = (
        "import socket, time\n"
        f"listening = socket.create_server(('127.0.0.1', {port}))\n"
        "held = b'x' * 10**9\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    monkeypatch.setattr(service, "_command", [sys.executable, "-c", parent])
    monkeypatch.setattr(service, "_ready", lambda: "ready" in service.output())
    for _ in range(3):
        service.start()
        service.kill()
        socket.create_server(("127.0.0.1", port)).close()
    service.stop()


def test_one_worker_finds_additions_of_another_at_once(served):
    _, address, process = served
    assert len(children(process)) == 2
    for number in range(10):
        id = send(address, image(-1 - number)).json()["id"]
        # A new connection each time, so that both workers get requests.
        for _ in range(4):
            result = send(address, image(-1 - number), "/v1/search", k=1)
            assert result.json()["results"][0]["id"] == id
        if number % 2:
            assert httpx.delete(f"{address}/v1/images/{id}").status_code == 204
            assert {httpx.get(f"{address}/v1/images/{id}").status_code for _ in range(4)} == {404}
    assert counted(address, "POST", "/v1/search", 200) == 40, "sum over both workers"


def test_workers_have_the_log_level_of_the_service(served):
    folder, address, _ = served
    for _ in range(4):
        assert httpx.get(f"{address}/health").status_code == 200
    log = folder.with_suffix(".2.log").read_text()
    assert log.startswith("serving ") and "INFO" not in log


def counted(address, method, route, status):
    metrics = httpx.get(f"{address}/metrics").text
    name = f'lookalike_requests_total{{method="{method}",route="{route}",status="{status}"}}'
    return float(re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.M)[1])


def test_a_killed_worker_loses_no_acknowledged_image(served):
    folder, address, process = served
    added, lock, stop, numbers = {}, threading.Lock(), threading.Event(), iter(range(10**6))
    counted_before = counted(address, "POST", "/v1/images", 201)

    def keep_adding():
        while not stop.is_set():
            with lock:
                number = next(numbers)
            # A request to a worker that is killed is not acknowledged. Its image may be there or not.
            with contextlib.suppress(httpx.TransportError):
                result = send(address, image(number), class_name=f"class {number % 3}")
                assert result.status_code == 201, result.text
                with lock:
                    added[number] = result.json()["id"]

    def check(address, some):
        for number, id in some:
            result = send(address, image(number), "/v1/search", k=1, class_name=f"class {number % 3}")
            assert [each["id"] for each in result.json()["results"]] == [id]
            assert httpx.get(f"{address}/v1/images/{id}/thumbnail").status_code == 200

    first = children(process)
    adders = [threading.Thread(target=keep_adding) for _ in range(4)]
    for adder in adders:
        adder.start()
    for worker in first:
        before = len(added)
        wait_until(lambda before=before: len(added) >= before + 20)
        os.kill(worker, signal.SIGKILL)
    before = len(added)
    # By the new workers.
    wait_until(lambda: len(added) >= before + 20, 60)
    wait_until(lambda: len(set(children(process)) - set(first)) == 2 and ready(process, address) == 2, 60)
    stop.set()
    for adder in adders:
        adder.join()
    assert not set(first) & set(children(process)), "both were killed and replaced"
    assert len(set(added.values())) == len(added) >= 60
    everything = list(added.items())
    check(address, everything[::4])
    # A worker may be killed between a response and its count, at most once per thread.
    total = counted(address, "POST", "/v1/images", 201) - counted_before
    assert abs(total - len(added)) <= 2 * len(adders), "sum over all workers, including the killed ones"
    process.terminate()
    process.wait(30)
    with LiveEngine.open(folder) as live:
        assert set(added.values()) <= set(live.engine.index.ids.tolist())
        for number, id in everything:
            assert np.array_equal(read_image(live.engine.gallery.paths[id]), read_image(image(number)))
        live.compact()
    with serving(folder, 1) as (address, _):
        check(address, everything[::5])
