"""Opens the page of a service in the browser of this computer, when the service is ready."""

import threading
import time
import urllib.request
import webbrowser

from helpers.cli.common import log, printable

#: Seconds between two attempts, and of all attempts: loading a network may take minutes on a busy computer.
_INTERVAL, _LIMIT = 0.2, 600.0


def open_when_ready(host: str, port: int, path: str = "") -> threading.Thread:
    """Start a thread that waits for a service, and then opens its page.

    host : the address that the service listens at. path : of the service, such as "/photos".
    """
    # A service at all addresses is reached at the loopback address.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
    thread = threading.Thread(target=_open, args=(address, path), name="open the browser", daemon=True)
    thread.start()
    return thread


def _open(address: str, path: str) -> None:
    deadline = time.monotonic() + _LIMIT
    while not _is_ready(f"{address}/ready"):
        if time.monotonic() > deadline:
            return
        time.sleep(_INTERVAL)
    page = f"{address}/{path.strip('/')}"
    if not webbrowser.open(page):
        log(f"note: no browser was found: open {printable(page)} yourself")


def _is_ready(address: str) -> bool:
    # Without the proxy of the environment, which cannot reach this computer.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
