"""Measurements side by side with a peer, one module for each question."""
