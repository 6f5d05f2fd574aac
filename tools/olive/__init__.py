"""Converts an Olive configuration to an experiment, and reports how each field maps to this project."""
