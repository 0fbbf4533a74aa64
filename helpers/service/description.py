"""The OpenAPI description of the service."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from helpers.service.errors import ErrorOut


def describe(app: FastAPI) -> dict:
    """The description of all routes of an application, with the form of their errors. Computed once."""
    if not app.openapi_schema:
        description = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        errors = ErrorOut.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = errors.pop("$defs")
        description.setdefault("components", {}).setdefault("schemas", {}).update({ErrorOut.__name__: errors} | parts)
        app.openapi_schema = description
    return app.openapi_schema
