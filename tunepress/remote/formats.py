"""Kinds of files that rows are read from, by the end of their names."""

FORMATS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
