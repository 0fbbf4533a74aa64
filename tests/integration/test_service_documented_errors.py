"""Every error that the description of the service names can be reached, and has its code."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.service import duplicate_search
from helpers.service.application import create_app
from helpers.service.errors import CODES
from helpers.service.parameters import check_parameters
from helpers.service.schemas import to_text
from helpers.service.settings import Settings
from tests.integration.conftest import two_classes

KEY, READ_KEY = "the key for changes", "the key for reading"
AUTHORIZED = {"X-API-Key": KEY}
NOWHERE = 10**6
#: Codes of requests that no route of the description matches; `test_service_errors` reaches them.
OF_NO_ROUTE = {"not_found", "method_not_allowed"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve photographs in two classes."""
    return two_classes(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def engine(root):
    return Engine("hsv-histogram").fit(from_folder(root))


@pytest.fixture(scope="module")
def distances(root):
    """An engine whose index has distances, with which most re-rankers do not work."""
    return Engine("hsv-histogram", "exact:euclidean").fit(from_folder(root))


@pytest.fixture(scope="module")
def photo(root):
    return next(root.rglob("*.*")).read_bytes()


class Case:
    """One operation of the service, with a valid request that a trigger changes."""

    def __init__(self, method, path, photo, vector):
        self.method, self.template, self.photo, self.vector = method, path, photo, vector
        self.id, self.params, self.headers, self.options = 0, {}, dict(AUTHORIZED), {}
        if path in ("/v1/search", "/v1/regions", "/v1/images/{id}/why") or (method, path) == ("POST", "/v1/images"):
            self.send(photo)
        elif path == "/v1/search/batch/upload":
            self.send(photo, photo)
        elif (method, path) == ("PATCH", "/v1/images/{id}"):
            self.options = {"json": {"class_name": "c"}}
        elif path in BODIES:
            self.options = {"json": BODIES[path](self)}
        elif path in ("/v1/images/export", "/v1/images/sizes"):
            self.params = {"id": 0}
        if path.endswith("/regions"):
            self.params |= {"source": "grid"}

    def send(self, *contents):
        self.options = {"files": [("image", ("a.jpg", each, "image/jpeg")) for each in contents]}

    @property
    def json(self):
        return self.options["json"]

    @property
    def has_file(self):
        return "files" in self.options

    @property
    def has_body(self):
        return bool(self.options)

    @property
    def path(self):
        return self.template.format(id=self.id)

    def body(self):
        """The content of the body and its type, as httpx writes them."""
        request = httpx.Request(self.method, "http://localhost", **self.options)
        return request.read(), request.headers["content-type"]


BODIES = {
    "/v1/search/vector": lambda case: {"vector": case.vector},
    "/v1/search/batch": lambda case: {"queries": [{"id": 0}, {"vector": case.vector}]},
    "/v1/search/combined": lambda case: {"parts": [{"id": 0}]},
}


class Service:
    """An application and its client."""

    def __init__(self, folder, **settings):
        self.app = create_app(Settings(**({"folder": folder, "api_key": KEY, "read_key": READ_KEY} | settings)))
        self.service = self.app.state.service

    async def ask(self, case, before=lambda *_: contextlib.AsyncExitStack()):
        """The response to a case. before(service, client) : an asynchronous context around it."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            before(self.service, client),
        ):
            return await client.request(
                case.method, case.path, params=case.params, headers=case.headers, **case.options
            )


def run(coroutine):
    """The result of a coroutine. A service belongs to one event loop."""
    # Playwright's event loop may run in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(coroutine)).result()


# --- triggers: each changes a valid request, or gives the settings of the service or what happens before


def host_not_allowed(case):
    case.headers["Host"] = "evil.example"


def other_site(case):
    case.headers["Sec-Fetch-Site"] = "cross-site"


def key_required(case):
    case.headers = {}


def key_wrong(case):
    case.headers = {"Authorization": "Bearer wrong"}


def unknown_parameter(case):
    case.params["nonsense"] = 1


def body_too_large(case):
    case.headers["Content-Length"] = str(10**9)


def bad_request(case):
    kind = case.body()[1] if case.has_file else "application/json"
    content = b"--no boundary\r\n\r\n" if case.has_file else b'{"\xff'
    case.headers["Content-Type"], case.options = kind, {"content": content}


def unsupported_content_type(case):
    case.headers["Content-Type"], case.options = "text/csv", {"content": b"a,b"}


def image_damaged(case):
    case.send(case.photo[: len(case.photo) // 2])


def unsupported_image(case):
    case.send(b"a text")


def image_too_large(case):
    return {"settings": {"max_pixels": 100}}


def invalid_request(case):
    if "{id}" in case.template:
        case.id = "x"
    elif case.template == "/v1/search/batch/upload":
        case.params["k"] = 0
    elif case.has_body:
        case.options = {} if case.has_file else {"json": {}}
    elif case.template == "/v1/images":
        case.params["limit"] = 0
    else:
        case.params["id"] = "x"


def image_not_found(case):
    if "{id}" in case.template:
        case.id = NOWHERE
    elif case.template == "/v1/search/combined":
        case.json["parts"] = [{"id": NOWHERE}]
    elif case.template == "/v1/search/batch":
        case.json["queries"] = [{"id": NOWHERE}]
    elif case.template == "/v1/search/vector":
        case.json["good"] = [NOWHERE]
    elif case.template == "/v1/images/export":
        case.params["id"] = NOWHERE
    else:
        case.params["good"] = NOWHERE


def class_not_found(case):
    (case.json if "json" in case.options else case.params)["class_name"] = "no such class"


def file_not_found(case):
    if case.template == "/v1/search/id/{id}":
        case.params["rerank"] = "geometry"
    elif case.template == "/v1/search/batch":
        case.options = {"json": {"queries": [{"id": 0}], "rerank": "geometry"}}
    elif case.template.endswith("/why"):
        case.params["query_id"], case.options = 1, {}
    return {"before": without_file if not case.template.endswith("/restore") else restored_without_file}


def not_applicable(case):
    boxes = {"box": ["0,0,20,20", "10,10,30,30"]}
    if case.template in ("/v1/search", "/v1/search/id/{id}"):
        case.params |= boxes | {"rerank": "expansion"}
    elif case.template.endswith("/why"):
        case.params |= boxes
    elif case.template == "/v1/search/batch/upload":
        case.params["rerank"] = "expansion"
        return {"engine": "distances"}
    elif case.template == "/v1/search/batch":
        case.json["rerank"] = "expansion"
        return {"engine": "distances"}
    elif case.template == "/v1/search/vector":
        case.json["vector"], case.json["rerank"] = [case.vector] * 2, "expansion"
    elif case.template == "/v1/search/combined":
        case.json["parts"] = [{"text": "a boat"}]
    elif case.template.endswith("/regions"):
        case.params["source"] = "detector"
        return {"patch": ("helpers.service.search_service.detector_weights.available", lambda: False)}
    else:
        return {"patch": (duplicate_search.__name__ + ".MAX_IMAGES", 1)}
    return {}


def changes_off(case):
    return {"settings": {"api_key": None, "read_key": None, "hosts": ("www.example.org",)}}


def request_timeout(case):
    content, kind = case.body()

    async def slowly():
        yield content[:10]
        await asyncio.sleep(10)

    case.headers["Content-Type"], case.options = kind, {"content": slowly()}
    return {"settings": {"idle_seconds": 0.02}}


def too_many_requests(case):
    if not case.has_body:
        case.options = {"content": b"1"}
    return {"settings": {"queue": 1}, "before": two_slow_uploads}


def internal_error(case):
    return {"before": broken}


def not_ready(case):
    if case.template == "/v1/search/id/{id}":
        case.params["box"] = "0,0,20,20"
    return {"before": broken_extractor}


def extraction_timeout(case):
    if case.template == "/v1/search/id/{id}":
        case.params["box"] = "0,0,20,20"
    return {"settings": {"request_seconds": 0.05}, "before": busy_extractor}


TRIGGERS = {
    function.__name__: function
    for function in (
        host_not_allowed, other_site, key_required, key_wrong, unknown_parameter, body_too_large, bad_request,
        unsupported_content_type, image_damaged, unsupported_image, image_too_large, invalid_request, image_not_found,
        class_not_found, file_not_found, not_applicable, changes_off, request_timeout, too_many_requests,
        internal_error, not_ready, extraction_timeout,
    )
}  # fmt: skip


@contextlib.asynccontextmanager
async def without_file(service, _):
    """The files of the first two images are elsewhere during the request."""
    paths = [service.gallery_search.path(id) for id in (0, 1)]
    for path in paths:
        path.rename(path.with_suffix(".gone"))
    try:
        yield
    finally:
        for path in paths:
            path.with_suffix(".gone").rename(path)


@contextlib.asynccontextmanager
async def restored_without_file(service, _):
    path = service.gallery_search.path(0)
    await service.changes(service.remove, 0)
    path.rename(path.with_suffix(".gone"))
    try:
        yield
    finally:
        path.with_suffix(".gone").rename(path)


@contextlib.asynccontextmanager
async def two_slow_uploads(service, client):
    """As many bodies arrive as the service accepts with a queue of one."""
    started, end = [asyncio.Event(), asyncio.Event()], asyncio.Event()

    def body(event):
        async def chunks():
            yield b"--b"
            event.set()
            await end.wait()

        return chunks()

    headers = AUTHORIZED | {"Content-Type": "multipart/form-data; boundary=b"}
    requests = [asyncio.create_task(client.post("/v1/search", headers=headers, content=body(each))) for each in started]
    await asyncio.gather(*(each.wait() for each in started))
    yield
    end.set()
    await asyncio.gather(*requests)


@contextlib.asynccontextmanager
async def broken(service, client):
    """A fault in what all routes do."""
    overrides = client._transport.app.dependency_overrides

    def fail():
        raise RuntimeError("a fault")

    overrides[check_parameters] = fail
    yield
    overrides.clear()


@contextlib.asynccontextmanager
async def broken_extractor(service, _):
    extractor = service._live.engine.extractor

    def fail(images):
        raise RuntimeError("a fault")

    extractor.extract_arrays = fail
    await service.prepare()
    yield
    del extractor.extract_arrays


@contextlib.asynccontextmanager
async def busy_extractor(service, _):
    end = threading.Event()
    work = asyncio.create_task(service._extraction._batches.in_thread(lambda: end.wait(20)))
    await asyncio.sleep(0)
    yield
    end.set()
    await work


def documented(app):
    """(code, method, path) of all errors that the description names."""
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    for code in response["content"]["application/json"]["examples"]:
                        assert CODES[code][0] == int(status)
                        yield code, method.upper(), path


@pytest.fixture(scope="module")
def table(engine, tmp_path_factory):
    folder = engine.save(tmp_path_factory.mktemp("documented") / "own.index")
    table = {}
    for code, method, path in documented(Service(folder).app):
        table.setdefault(code, []).append((method, path))
    return table


def test_every_code_is_documented_and_has_a_trigger(table):
    assert set(table) == set(TRIGGERS) == set(CODES) - OF_NO_ROUTE
    assert sum(map(len, table.values())) > 250


@pytest.mark.parametrize("code", TRIGGERS)
def test_every_documented_error_is_reached(code, table, engine, distances, photo, tmp_path, monkeypatch):
    vector = to_text(engine.index.vectors([3])[0])
    services = {}

    async def check(method, path):
        case = Case(method, path, photo, vector)
        plan = TRIGGERS[code](case) or {}
        # A removed image is another one in the next request.
        name = plan.get("engine"), path if path.endswith("/restore") else ""
        if name not in services:
            folder = (distances if name[0] else engine).save(tmp_path / f"{len(services)}.index")
            services[name] = Service(folder, **plan.get("settings", {}))
        with monkeypatch.context() as patch:
            if "patch" in plan:
                patch.setattr(*plan["patch"])
            before = {"before": plan["before"]} if "before" in plan else {}
            result = await services[name].ask(case, **before)
        assert result.status_code == CODES[code][0], (method, path, result.status_code, result.text)
        body = result.json()
        assert (list(body), body["code"]) == (["code", "message", "details"], code), (method, path, body)

    async def check_all():
        for method, path in table[code]:
            await check(method, path)

    run(check_all())


def test_a_valid_request_of_every_route_succeeds(engine, photo, tmp_path):
    """So that the errors above have the reasons that they seem to have."""
    vector = to_text(engine.index.vectors([3])[0])
    service = Service(engine.save(tmp_path / "own.index"))

    async def check_all():
        await service.service.prepare()
        for path, operations in service.app.openapi()["paths"].items():
            for method in operations:
                case = Case(method.upper(), path, photo, vector)
                # An image that a request changes is another one in the next request.
                if method in ("delete", "patch") or path.endswith("/restore"):
                    case.id = {"delete": 5, "patch": 6, "post": 7}[method]
                if path.endswith("/restore"):
                    await service.service.changes(service.service.remove, case.id)
                result = await service.ask(case)
                assert result.is_success, (method, path, result.text)

    run(check_all())
