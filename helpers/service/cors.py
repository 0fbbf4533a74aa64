"""Responses to the preflight requests of browsers (CORS), with refusals in the same form as other errors."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from helpers.service.errors import ApiError, error_response


class CrossSiteMiddleware(CORSMiddleware):
    """Starlette's middleware, which sends a refusal as plain text. Here it has the form of other errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The response for one origin, method and headers."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        # The text names what is refused, such as "Disallowed CORS origin, method".
        refused = bytes(response.body).decode().removeprefix("Disallowed CORS ")
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        message = f"Pages of other sites cannot send this request. The service does not allow its {refused}."
        return error_response(ApiError(403, message, headers, code="other_site"))
