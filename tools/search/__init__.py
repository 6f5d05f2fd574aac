"""Searches the recipe that meets the constraints and is best at the goal: `make search SEARCH=int4`.

Optuna chooses, DVC runs and remembers: each trial is a `dvc exp run` in a clone of the project (`clone.py`), named after the
recipe that it runs, so a recipe that has an experiment already is never run again, whoever ran it.
"""
