"""Small clients of two browsers that Playwright cannot control: Debian's Firefox, by WebDriver BiDi, and WebKitGTK.

Firefox speaks BiDi itself, over a WebSocket. WebKitGTK has a driver that speaks WebDriver over HTTP, and it needs a
display, such as Xvfb.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.loopback import reserved_port

_SECONDS = 30
_MINI_BROWSERS = "*/webkit2gtk-4.*/MiniBrowser"
#: What WebDriver calls the reference of an element.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser(ABC):
    """What both clients can do.

    errors : uncaught errors and console errors of the page, if the browser reports them.
    """

    errors: list[str]

    @abstractmethod
    def open(self, url: str) -> None:
        """Load a page."""

    @abstractmethod
    def run(self, script: str, *arguments: object) -> object:
        """The JSON value of ``return …`` in a script with ``arguments[0]`` …; may be a promise."""

    @abstractmethod
    def upload(self, selector: str, path: Path) -> None:
        """Choose a file in a file field."""

    @abstractmethod
    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse between two positions of the window."""

    def wait(self, script: str, *arguments: object) -> object:
        """The value of a script as soon as it is true."""
        end = time.monotonic() + _SECONDS
        while True:
            value = self.run(script, *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"did not become true: {script} {arguments}"
            time.sleep(0.05)


def _drag_actions(start: tuple[float, float], end: tuple[float, float]) -> list[dict]:
    def move(x: float, y: float) -> dict:
        return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50, "origin": "viewport"}

    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    moves = [
        move(*start),
        {"type": "pointerDown", "button": 0},
        move(*middle),
        move(*end),
        {"type": "pointerUp", "button": 0},
    ]
    return [{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}]


class _Firefox(Browser):
    def __init__(self, socket):
        """socket : an open WebSocket of the browser."""
        self._socket, self._numbers, self.errors = socket, itertools.count(1), []
        self._send("session.new", capabilities={})
        self._send("session.subscribe", events=["log.entryAdded"])
        self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]
        self._send("browsingContext.setViewport", context=self._context, viewport={"width": 1280, "height": 900})

    def _send(self, method: str, **parameters: object) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_SECONDS))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(str(message["params"]["text"]))
            if message.get("id") == number:
                assert message["type"] == "success", message
                return message["result"]

    def open(self, url: str) -> None:
        self._send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def _call(self, script: str, arguments: tuple[object, ...]) -> dict:
        declaration = f"async function (given) {{ const arguments_ = JSON.parse(given); {script} }}"
        found = self._send(
            "script.callFunction", functionDeclaration=declaration, awaitPromise=True,
            target={"context": self._context}, arguments=[{"type": "string", "value": json.dumps(arguments)}],
        )  # fmt: skip
        assert found["type"] == "success", found
        return found["result"]

    def run(self, script: str, *arguments: object) -> object:
        body = f"return JSON.stringify(await (async () => {{ {script} }})() ?? null)"
        return json.loads(self._call(body, arguments)["value"])

    def upload(self, selector: str, path: Path) -> None:
        found = self._call("return document.querySelector(arguments_[0])", (selector,))
        element = {"sharedId": found["sharedId"]}
        self._send("input.setFiles", context=self._context, element=element, files=[str(path)])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._send("input.performActions", context=self._context, actions=_drag_actions(start, end))


class _WebKit(Browser):
    def __init__(self, address: str, program: str):
        import httpx

        self._http, self.errors = httpx.Client(base_url=address, timeout=60), []
        options = {"binary": program, "args": ["--automation"]}
        wanted = {"browserName": "MiniBrowser", "webkitgtk:browserOptions": options}
        self._session = ""
        self._session = f"/session/{self._send('POST', '/session', capabilities={'alwaysMatch': wanted})['sessionId']}"
        self._send("POST", "/window/rect", width=1280, height=1000)

    def _send(self, method: str, path: str, **body: object) -> dict:
        sent = self._http.request(method, self._session + path, json=body if method == "POST" else None)
        assert sent.status_code == 200, sent.text
        return sent.json()["value"]

    def open(self, url: str) -> None:
        self._send("POST", "/url", url=url)

    def run(self, script: str, *arguments: object) -> object:
        # The driver does not report errors. They are collected from the first script after a page has loaded.
        body = f"""
            const arguments_ = Array.from(arguments), done = arguments_.pop();
            if (!window.testErrors) {{
                const errors = window.testErrors = [], log = console.error;
                window.addEventListener("error", (event) => errors.push(String(event.message)));
                window.addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
                console.error = (...parts) => {{ errors.push(parts.join(" ")); log.apply(console, parts); }};
            }}
            const finish = (value) => done([value ?? null, window.testErrors.splice(0)]);
            (async () => {{ {script} }})().then(finish, (error) => done(String(error)));
        """
        found = self._send("POST", "/execute/async", script=body, args=list(arguments))
        assert isinstance(found, list), found
        self.errors += found[1]
        return found[0]

    def upload(self, selector: str, path: Path) -> None:
        # The driver types only into elements that are shown.
        self.run("document.querySelector(arguments_[0]).hidden = false", selector)
        element = self._send("POST", "/element", using="css selector", value=selector)[_ELEMENT]
        self._send("POST", f"/element/{element}/value", text=str(path))
        self.run("document.querySelector(arguments_[0]).hidden = true", selector)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._send("POST", "/actions", actions=_drag_actions(start, end))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._send("DELETE", "")
        self._http.close()


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"NOT TESTED in another browser: none of {', '.join(names)} is installed")
    return found


@contextlib.contextmanager
def _process(command: list[str], log: Path, **variables: str) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **variables})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(log: Path, pattern: str) -> str:
    for _ in range(600):
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"{pattern} is not in {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Browser]:
    """Debian's Firefox without a window. folder : an empty one for its profile and its log."""
    from websockets.sync.client import connect

    profile, log = folder / "profile", folder / "firefox.log"
    profile.mkdir()
    # The defaults of remote control, which keep the browser off the network.
    (profile / "user.js").write_text(
        'user_pref("remote.prefs.recommended", true);\nuser_pref("network.proxy.type", 0);\n'
    )
    command = [_program("firefox-esr", "firefox"), "--headless", "--remote-debugging-port=0", "--profile", str(profile)]
    with _process([*command, "about:blank"], log, HOME=str(folder), MOZ_DISABLE_CONTENT_SANDBOX="1"):
        address = _wait_for(log, r"WebDriver BiDi listening on (ws://\S+)")
        with connect(f"{address}/session", max_size=None) as socket:
            yield _Firefox(socket)


@contextlib.contextmanager
def webkit(folder: Path) -> Iterator[Browser]:
    """WebKitGTK's MiniBrowser on a display of its own. folder : an empty one for its data and its log."""
    driver, display = _program("WebKitWebDriver"), _program("Xvfb")
    program = next(map(str, sorted(Path("/usr/lib").glob(_MINI_BROWSERS))), None)
    if program is None:
        pytest.skip("NOT TESTED in WebKitGTK: MiniBrowser is not installed; apt-get install webkit2gtk-driver")
    shown, log = folder / "xvfb.log", folder / "webkit.log"
    with _process([display, "-displayfd", "1", "-screen", "0", "1400x1100x24", "-nolisten", "tcp"], shown):
        number = _wait_for(shown, r"(?m)^(\d+)$")
        # No sandbox: containers have no user namespaces.
        variables = {
            "DISPLAY": f":{number}", "GDK_BACKEND": "x11", "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder),
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
            "LIBGL_ALWAYS_SOFTWARE": "1", "NO_AT_BRIDGE": "1",
        }  # fmt: skip
        with (
            reserved_port() as port,
            _process([driver, f"--port={port}", "--host=127.0.0.1"], log, **variables),
        ):
            _wait_until_open(port)
            browser = _WebKit(f"http://127.0.0.1:{port}", program)
            try:
                yield browser
            finally:
                browser.close()


def _wait_until_open(port: int) -> None:
    import socket

    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("the driver did not start")
