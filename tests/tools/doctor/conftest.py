"""Recipes to ask about."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.doctor.recipe import Recipe

Read = Callable[..., Recipe]


@pytest.fixture
def read(root: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a recipe as the command does, from the project's folder; nothing of it has been fetched."""
    monkeypatch.chdir(root)
    monkeypatch.setattr("tools.doctor.recipe.fetched_base_model", lambda: None)
    return lambda *overrides: Recipe.read(list(overrides))
