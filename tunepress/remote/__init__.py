"""Rows and models that are not on this disk."""
