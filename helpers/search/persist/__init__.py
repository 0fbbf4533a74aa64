"""A saved engine: its files, its write-ahead log, and what is searched while both change."""
