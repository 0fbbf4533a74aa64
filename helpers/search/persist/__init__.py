"""Saved engines: files, write-ahead log, compaction, and searching while they change."""
