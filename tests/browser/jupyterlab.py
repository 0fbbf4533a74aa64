"""A JupyterLab for tests in a browser."""

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import paths
from helpers.loopback import reserved_port


@contextmanager
def running(home: Path) -> Iterator[tuple[str, str, Path]]:
    """A JupyterLab without user settings, on the loopback interface: its address, token and folder of notebooks."""
    folder = home / "notebooks"
    folder.mkdir()
    with reserved_port() as port:
        token = secrets.token_hex(8)
        environment = os.environ | {
            "HOME": str(home),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")])),
            "LOOKALIKE_CACHE": str(paths.cache_dir()),
            "LOOKALIKE_FIGURES": str(home / "figures"),
        }
        settings = home / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
            "--LabApp.expose_app_in_browser=True",
        ]  # fmt: skip
        log = home / "lab.log"
        with log.open("wb") as written:
            server = subprocess.Popen(
                command, env=environment, stdout=written, stderr=subprocess.STDOUT, start_new_session=True, cwd=home
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api/status?token={token}", server, log)
            yield address, token, folder
        finally:
            # The kernels are its child processes and end with it.
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def run_all(page, lab: tuple[str, str, Path], name: str) -> None:
    """Open a notebook of the server's folder, and run it from top to bottom.

    If JupyterLab is open, the notebooks in it are closed and their kernels ended, and the view is as at the start.
    """
    address, token, _ = lab
    if page.url.startswith(address):
        page.evaluate(
            """async path => {
                const {shell, commands} = window.jupyterapp;
                for (const open of [...shell.widgets("main")]) {
                    await open.context?.sessionContext?.shutdown();
                    open.dispose();
                }
                shell.expandLeft();
                await commands.execute("apputils:change-theme", {theme: "JupyterLab Light"});
                await commands.execute("docmanager:open", {path, factory: "Notebook"});
            }""",
            name,
        )
    else:
        page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.evaluate(
        """async () => {
            const context = window.jupyterapp.shell.currentWidget.context;
            await context.sessionContext.ready;
            await context.sessionContext.session.kernel.info;
        }"""
    )
    # A widget that the kernel opens before JupyterLab has a widget manager for the notebook is lost.
    page.wait_for_function(
        """async mimeType => {
            const {rendermime} = window.jupyterapp.shell.currentWidget.content;
            const renderer = rendermime.getFactory(mimeType).createRenderer({mimeType});
            const manager = await Promise.race([renderer._manager.promise, null]);
            renderer.dispose();
            return manager?.restoredStatus;
        }""",
        arg="application/vnd.jupyter.widget-view+json",
        timeout=60_000,
    )
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not respond within 90 s:\n{log.read_text()}")
