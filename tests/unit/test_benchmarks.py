"""The benchmarks' command lines and what their processes return; nothing is measured here."""

import asyncio
import subprocess
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import indexes, processes, service, words


@pytest.mark.parametrize("chosen", ["hnsw", "exact"])
def test_some_of_the_indexes_have_no_targets(monkeypatch, capsys, chosen):
    monkeypatch.setattr("sys.argv", ["indexes", "--targets", "--only", chosen])
    monkeypatch.setattr(indexes, "make_data", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit, match="2"):
        indexes.main()
    assert "--only does not work with --targets" in capsys.readouterr().err


def test_each_client_sends_its_own_requests_the_same_in_each_run(monkeypatch, tmp_path):
    files = [tmp_path / f"{number}.jpg" for number in range(50)]
    for file in files:
        file.write_bytes(file.name.encode())
    sent = []

    class Writer:
        def close(self):
            pass

    async def open_connection(host, port):
        sent.append([])
        return sent[-1], Writer()

    async def exchange(reader, writer, request):
        reader.append(request)
        await asyncio.sleep(0.01)
        return 200

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    monkeypatch.setattr(service, "exchange", exchange)
    # With the second of the warm-up, it takes 0.1 seconds.
    options = Namespace(clients=3, seconds=-0.9, gallery=50)
    runs = []
    for _ in range(2):
        sent.clear()
        # In a thread, because tests in a browser leave a running loop in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, service.load("127.0.0.1", 1, list(map(str, files)), options)).result()
        runs.append([requests[:3] for requests in sent[:3]])
    assert runs[0] == runs[1] and len({tuple(requests) for requests in runs[0]}) == 3


def test_a_system_without_load_and_memory(monkeypatch, tmp_path, capsys):
    assert processes.memory("VmRSS") is None or processes.memory("VmRSS") <= processes.peak_memory()
    monkeypatch.setattr(processes, "STATUS", tmp_path / "none")
    assert processes.memory("VmRSS") is None and processes.peak_memory() is None
    monkeypatch.delattr("os.getloadavg", raising=False)
    assert processes.system_load() == "unknown"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Namespace(stdout="1.5 nan\n"))
    words.load_glove(2)
    assert capsys.readouterr().out == "GloVe loads in 1.50 s (best 1.50) and an unknown number of MB\n"
