"""The same engine behind HTTP and a web page."""
