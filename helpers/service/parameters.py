"""A check of requests: a name or a type of body that a route does not know is an error, instead of being ignored."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from fastapi import FastAPI, Request

from helpers.service.errors import ApiError, ErrorDetail
from helpers.service.sent_files import FILE_TYPES, content_type, is_file
from helpers.text import printable

_BODIES = {"multipart/form-data": "form", "application/json": "JSON body"}


class _Known:
    """What one route knows.

    query, form : names, and whether each may be repeated. body : fields of the JSON body. kinds : types of the body.
    """

    def __init__(self, operation: Mapping, schemas: Mapping):
        parameters = operation.get("parameters", ())
        self.query = {each["name"]: _is_list(each["schema"]) for each in parameters if each["in"] == "query"}
        bodies = operation.get("requestBody", {}).get("content", {})
        self.kinds = list(bodies)
        fields = {kind: _properties(bodies.get(kind, {}).get("schema", {}), schemas) for kind in _BODIES}
        self.form = {name: _is_list(schema) for name, schema in fields["multipart/form-data"].items()}
        self.body = set(fields["application/json"])


def _properties(schema: Mapping, schemas: Mapping) -> Mapping:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    return schema.get("properties", {})


def _is_list(schema: Mapping) -> bool:
    return schema.get("type") == "array" or any(map(_is_list, schema.get("anyOf", ())))


async def check_parameters(request: Request) -> None:
    """A dependency of all routes: a request has only parameters, form fields and bodies that the description names.

    Routes outside the description, such as the web page, accept any.

    Raises ApiError: 415, the body has another type; 422, a name is unknown, is in the wrong place, or is repeated
    although it takes only one value, or the route takes no body.
    """
    known = known_parameters(request.app).get((request.method, request.scope["route"].path))
    if known is None:
        return
    if "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0":
        if known.kinds:
            _check_type(content_type(request.headers), known.kinds)
        else:
            await _check_empty(request)
    elsewhere = dict.fromkeys(known.form, "form") | dict.fromkeys(known.body, "JSON body")
    _check("query", request.query_params.multi_items(), known.query, elsewhere)
    if known.form and content_type(request.headers) == "multipart/form-data":
        # Starlette has parsed it and returns the same form.
        form = await request.form()
        _check("body", form.multi_items(), known.form, dict.fromkeys(known.query, "query string of the address"))


async def _check_empty(request: Request) -> None:
    # A body in chunks announces no length, and may be empty.
    async for chunk in request.stream():
        if chunk:
            detail = ErrorDetail(location=["body"], message="The path takes no body", type="unknown_parameter")
            message = "The request has a body, but this path takes none. Parameters belong in the address."
            raise ApiError(422, message, code="unknown_parameter", details=[detail])


def _check_type(kind: str, known: list[str]) -> None:
    if kind in known or (is_file(kind) and set(FILE_TYPES) <= set(known)):
        return
    given = f"is {printable(kind[:100])}" if kind else "is missing"
    choices = ", ".join(known[:-1]) + (" or " if known[:-1] else "") + known[-1]
    raise ApiError(
        415, f"The Content-Type of the body {given}. It must be {choices}.", code="unsupported_content_type"
    )  # fmt: skip


def _check(place: str, items: Iterable[tuple], known: Mapping[str, bool], elsewhere: Mapping[str, str]) -> None:
    """Refuse names that the route does not know, that belong in another place, or that are repeated.

    place : where the names are in the request. known : the names that belong there, and whether each may be repeated.
    elsewhere : names that belong in other places, and these places.

    Raises ApiError: 422, there is such a name.
    """
    names = [name for name, _ in items]
    details = []
    for name in dict.fromkeys(names):
        shown = printable(name[:100])
        if name in elsewhere and name not in known:
            message = f"{shown} belongs in the {elsewhere[name]}"
        elif name not in known:
            close = get_close_matches(name, known, 1)
            choices = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
            message = f"{shown} is not known; {choices}"
        elif names.count(name) > 1 and not known[name]:
            message = f"{shown} is repeated, but takes only one value"
        else:
            continue
        details.append(ErrorDetail(location=[place, shown], message=message, type="unknown_parameter"))
    if details:
        message = f"The request has a parameter that cannot be used: {'; '.join(each.message for each in details[:3])}"
        raise ApiError(422, message, code="unknown_parameter", details=details[:20])


def known_parameters(app: FastAPI) -> dict[tuple[str, str], _Known]:
    """What the routes of an application know, by method and path. Computed once."""
    if not hasattr(app.state, "known_parameters"):
        description = app.openapi()
        schemas = description.get("components", {}).get("schemas", {})
        app.state.known_parameters = {
            (method.upper(), path): _Known(operation, schemas)
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
        }
    return app.state.known_parameters
