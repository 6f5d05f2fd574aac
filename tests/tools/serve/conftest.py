"""Fixtures of the service's tests: models, and a server of the plain one that many tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serve.letters_model import TINY, letters_model
from tests.tools.serve.prompts import CHAT, COLUMNS, SLOW, with_prompt
from tests.tools.serve.served import Server, serving
from tunepress.inference.onnx_model import OnnxModel


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on texts of one column, with free text for an answer."""
    return letters_model(tmp_path_factory.mktemp("letters"), TINY, context=512, endless=False)


@pytest.fixture(scope="session")
def columns_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained on two columns."""
    return with_prompt(folder, COLUMNS, tmp_path_factory.mktemp("columns") / "onnx")


@pytest.fixture(scope="session")
def chat_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained in its chat template."""
    return with_prompt(folder, CHAT, tmp_path_factory.mktemp("chat") / "onnx")


@pytest.fixture(scope="session")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger model that goes on until it is stopped."""
    return letters_model(tmp_path_factory.mktemp("slow"), SLOW, context=8192, endless=True)


@pytest.fixture(scope="session")
def model(folder: Path) -> OnnxModel:
    """The plain model in this process."""
    return OnnxModel(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server of the plain model."""
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def chat_server(chat_folder: Path) -> Iterator[Server]:
    """A server of the model that was trained in its chat template."""
    with serving(chat_folder) as running:
        yield running


@pytest.fixture(scope="module")
def slow_server(slow_folder: Path) -> Iterator[Server]:
    """A server of the slow model, with room for three prompts."""
    with serving(slow_folder, "--queue", "3", "--max-prompts", "2", "--timeout", "100", "--max-tokens", "8192") as running:
        yield running


@pytest.fixture(scope="session")
def endless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a small model of 512 tokens that ends no answer by itself."""
    with serving(letters_model(tmp_path_factory.mktemp("endless"), TINY, context=512, endless=True)) as running:
        yield running
