"""Image search over HTTP: a web page and an interface for programs."""

from helpers import extras

# Checked once here, because nearly every module of the package imports FastAPI or one of its dependencies.
extras.require("serve")
