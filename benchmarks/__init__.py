"""Measurements, most of them next to another tool: one module or package for each question."""
