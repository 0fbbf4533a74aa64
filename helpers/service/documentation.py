"""The files of Swagger UI, which makes the interactive documentation at ``/docs``."""

from importlib.util import find_spec
from pathlib import Path

from helpers.extras import importing

with importing("serve"):
    _spec = find_spec("fastapi_offline")
    assert _spec is not None and _spec.origin is not None, "checked above"

#: The folder of ``swagger-ui-bundle.js`` and ``swagger-ui.css``. No code of the package is used.
FILES = Path(_spec.origin).parent / "static"
