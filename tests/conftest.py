"""Fixtures that several test modules share."""

from pathlib import Path

import pytest

import tunepress  # noqa: F401  (pins the float kernels before torch is imported)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a random two-layer Phi-3, fused qkv_proj and gate_up_proj included."""
    from omegaconf import OmegaConf

    from stages.fetch.stage import fetch
    from tunepress.config.base_model import BaseModel

    chosen = OmegaConf.merge(OmegaConf.structured(BaseModel), OmegaConf.load(ROOT / "conf/base_model/tiny_phi3.yaml"))
    chosen.tracked = "stages/fetch/stage.py"
    folder = tmp_path_factory.mktemp("tiny") / "base"
    base_model = OmegaConf.to_object(chosen)
    assert isinstance(base_model, BaseModel)
    fetch(base_model, 0, folder)
    return folder
