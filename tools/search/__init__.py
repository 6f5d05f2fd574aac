"""Searches for the recipe that meets the constraints and is best at the goal: `make search SEARCH=int4`.

Optuna proposes recipes, DVC runs and stores them: each trial is a `dvc exp run` in a clone of the project (`clone.py`), named
after its recipe, so that a recipe that already has an experiment is never run again.
"""
