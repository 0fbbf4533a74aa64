"""The examples in the OpenAPI description: there are enough of them, and they are valid and true."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema
import pytest
from PIL import Image

from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.settings import Settings


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A gallery that has the ids, the class and the boxes of the examples."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "beach").mkdir()
    for number in range(10):
        Image.new("RGB", (640, 480), (20 * number, 100, 50)).save(root / "beach" / f"{number}.png")
    engine = Engine("hsv-histogram").fit(from_folder(root))
    return create_app(Settings(folder=engine.save(tmp_path_factory.mktemp("examples") / "own.index")))


@pytest.fixture(scope="module")
def description(app):
    return app.openapi()


def operations(description):
    return [
        (method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def contents(description):
    """(where, schema) of each JSON body, of requests and of successful responses."""
    for method, path, operation in operations(description):
        bodies = [operation.get("requestBody", {})]
        bodies += [each for status, each in operation["responses"].items() if status.startswith("2")]
        for each in bodies:
            if "application/json" in each.get("content", {}):
                yield f"{method} {path}", each["content"]["application/json"]["schema"]


def examples_of(schema, description):
    """The examples of a schema, of what it refers to, or of its alternatives."""
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = list(schema.get("examples", ()))
    return found + [example for each in schema.get("anyOf", ()) for example in examples_of(each, description)]


def validate(example, schema, description):
    jsonschema.Draft202012Validator({**schema, "components": description["components"]}).validate(example)


def test_every_json_body_has_a_valid_example(description):
    found = list(contents(description))
    assert len(found) >= 20
    for where, schema in found:
        examples = examples_of(schema, description)
        assert examples, where
        for example in examples:
            validate(example, schema, description)


def test_examples_of_responses_have_all_fields(description):
    for _, path, operation in operations(description):
        for status, response in operation["responses"].items():
            schema = response.get("content", {}).get("application/json", {}).get("schema", {})
            if status.startswith("2") and schema:
                fields = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
                assert all(set(example) == set(fields) for example in examples_of(schema, description)), path


def test_every_parameter_has_a_valid_example(description):
    """Except those that are true or false."""
    found = [(path, each) for _, path, operation in operations(description) for each in operation.get("parameters", ())]
    assert len(found) >= 50
    for path, parameter in found:
        schema = parameter["schema"]
        examples = examples_of(schema, description)
        assert examples or schema.get("type") == "boolean", (path, parameter["name"])
        for example in examples:
            validate(example, schema, description)


def test_the_service_accepts_the_examples_of_parameters(app, description):
    """One at a time: together, some exclude each other."""

    async def send_all():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await app.state.service.prepare()
            for path in ("/v1/search/id/{id}", "/v1/images", "/v1/images/{id}/thumbnail", "/v1/images/sizes"):
                for parameter in description["paths"][path]["get"]["parameters"]:
                    # The four numbers of a crop come together.
                    if parameter["in"] == "query" and parameter["name"] not in ("left", "top", "width", "height"):
                        (example,) = examples_of(parameter["schema"], description) or [True]
                        result = await client.get(path.format(id=1), params={parameter["name"]: example})
                        assert result.status_code == 200, (path, parameter["name"], result.text)
            crop = dict.fromkeys(("left", "top", "width", "height"), 0.25)
            assert (await client.get("/v1/search/id/1", params=crop)).status_code == 200

    with ThreadPoolExecutor(1) as thread:
        # Playwright's event loop may run in this thread.
        thread.submit(lambda: asyncio.run(send_all())).result()
