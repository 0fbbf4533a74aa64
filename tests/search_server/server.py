"""Real search servers for tests: assembled from Maven Central, started on loopback, killed and started again.

The distributions of OpenSearch and Elasticsearch are not in Maven Central, but their parts are: the servers, their
modules for HTTP, and of OpenSearch also the script language and the k-NN plugin.

To run a server for notebook 18: ``python -m tests.search_server.server``.
"""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from helpers import paths
from helpers.loopback import reserved_port

HERE = Path(__file__).parent
#: Seconds within which a server must be ready; an idle computer needs about ten.
START_TIMEOUT = 240
#: A user and a group without rights, on Linux.
UNPRIVILEGED = 65534
LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True)
class Product:
    """A server whose parts are in Maven Central.

    name : its folder here, which has a ``pom.xml``, the sums of the files, and the descriptors of the modules.
    java : the versions of Java that it runs on.
    modules : module → the beginnings of the names of its files. All other files belong to the server.
    arguments : of the command ``java``, after the options; ``{home}`` stands for the folder of the server.
    """

    name: str
    version: str
    java: range
    modules: Mapping[str, tuple[str, ...]]
    arguments: tuple[str, ...]


OPENSEARCH = Product(
    "opensearch",
    "2.19.1",
    # Newer ones have no security manager, which this version needs.
    range(17, 24),
    {
        "transport-netty4": ("netty-", "transport-netty4-"),
        "lang-painless": ("lang-painless-", "opensearch-scripting-painless-spi-", "antlr4-runtime-", "asm-"),
    },
    (
        "-Djava.security.manager=allow", "-Djava.locale.providers=SPI,COMPAT", "-Dlog4j2.disable.jmx=true",
        "-Dopensearch.path.home={home}", "-Dopensearch.path.conf={home}/config", "-Dopensearch.distribution.type=tar",
        "-cp", "{home}/lib/*", "org.opensearch.bootstrap.OpenSearch",
    ),
)  # fmt: skip
#: Without the script language, which the exact search needs.
ELASTICSEARCH = Product(
    "elasticsearch",
    "9.5.3",
    range(21, 26),
    {"transport-netty4": ("netty-", "transport-netty4-")},
    ("--add-modules", "ALL-MODULE-PATH", "-p", "{home}/lib", str(HERE / "elasticsearch" / "Launcher.java"), "{home}"),
)


class Unavailable(Exception):
    """The server cannot run here; the message says what is missing."""


def find_java(versions: range) -> str:
    """The program ``java`` of a JDK of one of these versions, on the path or in the folder that Linux has for them.

    Raises `Unavailable` if there is none.
    """
    on_path = shutil.which("java")
    installed = [on_path] if on_path else []
    installed += sorted(str(path) for path in Path("/usr/lib/jvm").glob("*/bin/java"))
    for java in installed:
        text = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
        found = re.search(r'version "(\d+)', text)
        if found and int(found[1]) in versions and Path(java).resolve().with_name("javac").is_file():
            return java
    raise Unavailable(f"no JDK of version {versions[0]} to {versions[-1]} is installed")


def assemble(product: Product) -> Path:
    """The folder of the server in the cache, which is made at the first call: about 50 MB are downloaded.

    Raises
    ------
    Unavailable : Maven is missing, or Maven Central cannot be reached.
    ValueError : a downloaded file differs from the one that was tested.
    """
    home = paths.cache_dir() / "search-server" / f"{product.name}-{product.version}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.parent / "lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                parts, made = Path(folder, "parts"), Path(folder, "home")
                _download(HERE / product.name / "pom.xml", parts)
                _verify(HERE / product.name / "sha256.txt", parts)
                _arrange(product, parts, made)
                made.rename(home)
    return home


def _download(pom: Path, parts: Path) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable("Maven (the program mvn) is not installed")
    command = ["mvn", "-B", "-q", "-Dstyle.color=never", "-f", str(pom), "dependency:copy-dependencies"]
    done = subprocess.run([*command, f"-DoutputDirectory={parts}"], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["no message"]
        raise Unavailable(f"Maven could not download the server: {errors[0]}")


def _verify(sums: Path, parts: Path) -> None:
    lines = [line.split() for line in sums.read_text(encoding="utf-8").splitlines()]
    expected = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in parts.iterdir()}
    differ = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if differ:
        raise ValueError(f"not the files of {sums}: {', '.join(differ)}")


def _arrange(product: Product, parts: Path, home: Path) -> None:
    """The folders of an installed server."""
    shutil.copytree(HERE / product.name / "modules", home / "modules")
    for name in ("lib", "plugins"):
        (home / name).mkdir()
    for path in parts.glob("*.jar"):
        owners = [f"modules/{name}" for name, beginnings in product.modules.items() if path.name.startswith(beginnings)]
        shutil.copy(path, home / (owners or ["lib"])[0])
    for path in parts.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(home / "plugins" / path.stem)


class SearchServer:
    """One node on a free port of this computer, with its data in a temporary folder.

    settings : lines of the node's configuration in addition to those that every test needs.

    `kill` ends it without any preparation; `start` starts it again, on the same port, with the same data. Use it in a
    ``with`` block, which starts it, and in the end kills it and deletes its data.

    Raises `Unavailable` if it cannot run here.
    """

    def __init__(self, product: Product, settings: Mapping[str, object]):
        java, source = find_java(product.java), assemble(product)
        self.product = product
        self.folder = Path(tempfile.mkdtemp(prefix=f"{product.name}-"))
        home = self.folder / "home"
        shutil.copytree(source, home)
        for name in ("config", "data", "logs", "tmp"):
            (home / name).mkdir()
        self._reservation = contextlib.ExitStack()
        self.port = self._reservation.enter_context(reserved_port())
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
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        (home / "config" / f"{product.name}.yml").write_text(text, encoding="utf-8")
        (home / "config" / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        self._command = [java, "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._command += [f"-Djava.io.tmpdir={home / 'tmp'}", *(each.format(home=home) for each in product.arguments)]
        self._identity: dict[str, object] = {}
        if os.geteuid() == 0:
            # Neither server runs as root.
            self._identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "SearchServer":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reservation.close()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it, and wait until every shard is there."""
        path = self.folder / "server.log"
        with path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, **self._identity
            )
        end = time.monotonic() + START_TIMEOUT
        while not self._is_green():
            if self._process.poll() is not None or time.monotonic() > end:
                text = path.read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{self.product.name} did not start; the end of its log:\n{text[-3000:]}")
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


if __name__ == "__main__":
    with SearchServer(OPENSEARCH, {}) as running:
        input(f"OPENSEARCH_URL=http://{running.address}; press Enter to stop the server")
