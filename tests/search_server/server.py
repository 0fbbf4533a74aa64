"""A real OpenSearch server for tests: assembled from Maven Central, started on loopback, killed and started again.

The distribution of OpenSearch is not in Maven Central, but its parts are: the server, two modules and the k-NN plugin.
"""

import hashlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from helpers import paths

HERE = Path(__file__).parent
VERSION = "2.19.1"
#: Newer ones have no security manager, which this version of OpenSearch needs.
JAVA = range(17, 24)
#: Module → its class, and the beginnings of the names of its files. All other files belong to the server.
MODULES = {
    "transport-netty4": ("org.opensearch.transport.Netty4Plugin", ("netty-", "transport-netty4-client-")),
    "lang-painless": (
        "org.opensearch.painless.PainlessPlugin",
        ("lang-painless-", "opensearch-scripting-painless-spi-", "antlr4-runtime-", "asm-"),
    ),
}
PLUGIN = "opensearch-knn"
DESCRIPTOR = """name={name}
description={name}
version={version}
opensearch.version={version}
java.version=11
classname={main}
"""
LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
#: A user and a group without rights, on Linux.
UNPRIVILEGED = 65534
#: Seconds within which the server must be ready; an idle computer needs about ten.
START_TIMEOUT = 120


class Unavailable(Exception):
    """The server cannot run here; the message says what is missing."""


def check_tools() -> None:
    """Raise `Unavailable` unless a suitable Java and Maven are installed."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise Unavailable(f"the program {tool} is not installed")
    text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found[1]) not in JAVA:
        raise Unavailable(f"Java {JAVA[0]} to {JAVA[-1]} is needed, `java -version` says {text.splitlines()[0]}")


def assemble() -> Path:
    """The folder of the server in the cache, which is made at the first call: 50 MB are downloaded.

    Raises
    ------
    Unavailable : Java or Maven is missing, or Maven Central cannot be reached.
    ValueError : a downloaded file differs from the one that was tested.
    """
    check_tools()
    home = paths.cache_dir() / "search-server" / VERSION
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.parent / "lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                parts, made = Path(folder, "parts"), Path(folder, "home")
                _download(parts)
                _verify(parts)
                _arrange(parts, made)
                made.rename(home)
    return home


def _download(parts: Path) -> None:
    command = ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run([*command, f"-DoutputDirectory={parts}"], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["no message"]
        raise Unavailable(f"Maven could not download the server: {errors[0]}")


def _verify(parts: Path) -> None:
    lines = [line.split() for line in (HERE / "sha256.txt").read_text(encoding="utf-8").splitlines()]
    expected = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in parts.iterdir()}
    differ = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if differ:
        raise ValueError(f"not the files of sha256.txt: {', '.join(differ)}")


def _arrange(parts: Path, home: Path) -> None:
    """The folders of an installed server."""
    for folder in ("lib", *(f"modules/{name}" for name in MODULES)):
        (home / folder).mkdir(parents=True)
    for path in parts.glob("*.jar"):
        owners = [f"modules/{name}" for name, (_, beginnings) in MODULES.items() if path.name.startswith(beginnings)]
        shutil.copy(path, home / (owners or ["lib"])[0])
    for name, (main, _) in MODULES.items():
        folder = home / "modules" / name
        text = DESCRIPTOR.format(name=name, version=VERSION, main=main)
        (folder / "plugin-descriptor.properties").write_text(text, encoding="utf-8")
        shutil.copy(HERE / f"{name}.policy", folder / "plugin-security.policy")
    with zipfile.ZipFile(next(parts.glob(f"{PLUGIN}-*.zip"))) as archive:
        archive.extractall(home / "plugins" / PLUGIN)


class SearchServer:
    """One node on a free port of this computer, with its data in a temporary folder.

    settings : lines of ``opensearch.yml`` in addition to those that every test needs.

    `kill` ends it as a power failure of the process would, without any preparation; `start` starts it again, on the
    same port, with the same data. Use it in a ``with`` block, which stops it and deletes its data.
    """

    def __init__(self, settings: Mapping[str, object]):
        source = assemble()
        self.folder = Path(tempfile.mkdtemp(prefix="search-server-"))
        self.home = self.folder / "home"
        shutil.copytree(source, self.home)
        for name in ("config", "data", "logs", "tmp"):
            (self.home / name).mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        lines = {
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": 0,
            "action.auto_create_index": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            # By default, four shards at a time are made or recovered.
            "cluster.routing.allocation.node_initial_primaries_recoveries": 100,
        } | dict(settings)
        config = self.home / "config"
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        (config / "opensearch.yml").write_text(text, encoding="utf-8")
        (config / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        self._identity: dict[str, object] = {}
        if os.geteuid() == 0:
            # OpenSearch does not run as root.
            self._identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def __enter__(self) -> "SearchServer":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it, and wait until every shard is there."""
        home = self.home
        command = ["java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Djava.security.manager=allow", "-Djava.locale.providers=SPI,COMPAT", "-Dlog4j2.disable.jmx=true"]
        command += [f"-Djava.io.tmpdir={home / 'tmp'}", "-Dopensearch.distribution.type=tar"]
        command += [f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={home / 'config'}"]
        command += ["-cp", f"{home / 'lib'}/*", "org.opensearch.bootstrap.OpenSearch"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home, **self._identity
            )
        end = time.monotonic() + START_TIMEOUT
        while not self._is_green():
            if self._process.poll() is not None or time.monotonic() > end:
                text = self.log.read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"the search server did not start; the end of its log:\n{text[-3000:]}")
            time.sleep(0.1)

    def _is_green(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/_cluster/health?wait_for_status=green&timeout=5s")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the process (SIGKILL), if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
