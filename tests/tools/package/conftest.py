"""A model to package."""

from pathlib import Path

import pytest

from benchmarks.serve.letters_model import TINY, letters_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on texts of one column, which has another chat template."""
    return letters_model(tmp_path_factory.mktemp("package"), TINY, context=512, endless=False)
