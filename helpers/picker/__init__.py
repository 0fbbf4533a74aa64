"""The query picker: choose a query in a notebook, search, and compare methods."""
