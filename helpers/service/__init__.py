"""The same engine behind HTTP and a web page."""

from helpers import extras

# Here and not in each module: nearly all of them import FastAPI or what comes with it.
extras.require("serve")
