"""What all tests share, and the option ``--profile``."""

import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings

from helpers import paths
from helpers.lessons import runner

# A slow or busy machine is no reason to fail.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
# The servers of the tests are on this computer, where no proxy of the environment can reach them.
paths.bypass_proxies_on_loopback()

#: ``./run_all.sh test`` and ``--ci`` run the solutions of a notebook whose last saved run took less than this.
QUICK_SECONDS = 40


def lesson_of(path):
    """The lesson of a notebook of solutions; another notebook is returned itself."""
    if path.parent.name != "solutions":
        return path
    return path.parent.parent / path.name.replace("_solutions.ipynb", ".ipynb")


def is_quick(notebook):
    """Whether the last saved run of a notebook took less than `QUICK_SECONDS`; True without a saved run."""
    return runner.saved_seconds(notebook) < QUICK_SECONDS


def pytest_addoption(parser):
    parser.addoption(
        "--profile", choices=("sample", "full"), default="sample", help="data of the notebooks that papermill runs"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With --jobs, the tests of a file run in one process, because they share fixtures; notebooks share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if file.endswith("test_smoke.py") else file

    # The order of the collection, see below, and not the files with the most tests first.
    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items, config):
    """Mark the cells of notebooks, which nbval runs with their defaults, as measured, and solutions of slow ones.

    ``test_smoke.py`` runs all notebooks with small parameters.

    With --jobs, the quick files are the last ones, so that no process is alone with a long test at the end.
    """
    for item in items:
        lesson = lesson_of(Path(item.path))
        if item.path.suffix == ".ipynb" and (lesson == item.path or not is_quick(lesson)):
            item.add_marker(pytest.mark.measured)
    yield  # -m selects tests
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if "unit" not in item.path.parts or item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def profile(pytestconfig):
    """The requested profile; ``full`` needs the data sets."""
    chosen = pytestconfig.getoption("--profile")
    if chosen == "full" and paths.mirror_dir() is None:
        pytest.skip("NOT TESTED: the full profile needs the data sets; set LOOKALIKE_MIRROR to their folder")
    return chosen


@pytest.fixture
def serve_app():
    """``serve_app(app)`` → the URL of a server in a thread of this process that runs an ASGI application."""
    import uvicorn

    started = []

    def serve(app) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", proxy_headers=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        started.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield serve
    for server, thread in reversed(started):
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


@pytest.fixture
def reverse_proxy(serve_app):
    """``reverse_proxy(url, path, keeps_path, keeps_host=True)`` → the URL under which a proxy publishes a service.

    keeps_path : whether the service gets ``path`` too. Without it, the proxy names ``path`` in a header and publishes
        it with and without a slash at the end, as jupyter-server-proxy does.
    keeps_host : whether the service gets the ``Host`` of the client; nginx sends its own by default.
    """
    import httpx
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    def publish(url: str, path: str, keeps_path: bool, keeps_host: bool = True) -> str:
        async def forward(request):
            if not f"{request.url.path}/".startswith(f"{path}/"):
                return Response("the proxy has nothing there", 404)
            below = request.url.path if keeps_path else request.url.path.removeprefix(path) or "/"
            added = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "http"}
            if not keeps_path:
                added["x-forwarded-prefix"] = path
            if not keeps_host:
                added["host"] = httpx.URL(url).netloc.decode()
            target = httpx.URL(url + below, query=request.url.query.encode())
            async with httpx.AsyncClient(timeout=20) as client:
                response = await client.request(
                    request.method, target, headers={**request.headers, **added}, content=await request.body()
                )
            dropped = ("content-encoding", "content-length", "transfer-encoding")
            headers = {name: value for name, value in response.headers.items() if name not in dropped}
            return Response(response.content, response.status_code, headers)

        methods = ["GET", "HEAD", "POST", "DELETE"]
        return serve_app(Starlette(routes=[Route("/{path:path}", forward, methods=methods)])) + path

    return publish


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache for one test."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def fresh_cache(tmp_path_factory):
    """A cache of this module, so that results of an earlier run cannot hide a change of the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def committed_figures(monkeypatch):
    """Tests read the committed figures; LOOKALIKE_FIGURES is for the notebooks that run next to them."""
    monkeypatch.delenv("LOOKALIKE_FIGURES", raising=False)


@pytest.fixture(scope="session")
def resnet50():
    """The real network; its weights are fetched once into the project's cache."""
    from helpers.features.registry import open_extractor
    from helpers.networks.weights import WeightsUnavailable

    try:
        return open_extractor("resnet50")
    except WeightsUnavailable as error:
        pytest.skip(f"NOT TESTED with real weights: {error}")


@pytest.fixture(scope="session")
def detector():
    """The pretrained detector; its weights are fetched once into the project's cache."""
    from helpers.features import regions
    from helpers.networks.weights import WeightsUnavailable

    try:
        return regions.pretrained_detector()
    except WeightsUnavailable as error:
        pytest.skip(f"NOT TESTED with real weights: {error}")


@pytest.fixture
def cache_with_weights(resnet50, tmp_path, monkeypatch):
    """A cache for one test that holds nothing but the weights."""
    weights = paths.cache_dir() / "weights"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights").symlink_to(weights, target_is_directory=True)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mirror():
    """The folder of the data sets; tests of real archives are skipped, with a message, without it."""
    if paths.mirror_dir() is None:
        pytest.skip("NOT TESTED on the real data sets: set LOOKALIKE_MIRROR to their folder")
    return paths.mirror_dir()
