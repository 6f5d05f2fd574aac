"""Fixtures of the tests for Azure. Where CI=true, a program that is missing is a failure."""

import os
from collections.abc import Iterator

import pytest

from tests.azure.azurite import MISSING, Azurite


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azure Blob Storage, empty, for one test module."""
    if MISSING and not os.environ.get("CI"):
        pytest.skip(f"needs {', '.join(MISSING)}: `make tests/azure/node_modules`")
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    server.start()
    yield server
    server.stop()
