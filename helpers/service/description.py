"""The OpenAPI description of the service."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from helpers.service.access import needs_read_key
from helpers.service.errors import ErrorOut, error_responses
from helpers.service.examples import RESPONSES


def describe(app: FastAPI) -> dict:
    """Describe all routes of an application, with the form of errors and examples; computed once."""
    if not app.openapi_schema:
        description = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        errors = ErrorOut.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = errors.pop("$defs")
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        schemas.update({ErrorOut.__name__: errors} | parts)
        for example in RESPONSES:
            schemas[type(example).__name__]["examples"] = [example.model_dump(mode="json")]
        for operations in description["paths"].values():
            for operation in operations.values():
                _require_file(operation, schemas)
        if app.state.service.settings.read_key is not None:
            _require_key(description["paths"])
        app.openapi_schema = description
    return app.openapi_schema


def _require_file(operation: dict, schemas: dict) -> None:
    """Describe the file of a form as required. FastAPI takes it as optional, because it may also be the body itself."""
    body = operation.get("requestBody", {})
    form = body.get("content", {}).get("multipart/form-data")
    if form and body.get("required"):
        schema = schemas[form["schema"]["$ref"].rpartition("/")[2]]
        image = schema["properties"]["image"]
        if "anyOf" in image:
            schema["properties"]["image"] = image.pop("anyOf")[0] | image
        schema["required"] = ["image"]


def _require_key(paths: dict) -> None:
    """Add the errors about the key to the routes that it protects."""
    unauthorized = error_responses("key_required", "key_wrong")[401]
    for path, operations in paths.items():
        if needs_read_key(path):
            for operation in operations.values():
                operation["responses"].setdefault("401", unauthorized)
