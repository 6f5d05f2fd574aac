"""Turns rows into prompts and completions, and splits them."""
