"""The shapes of models that are not downloaded yet: as many parameters as their model cards say."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tools.doctor.known_models import KNOWN
from tools.doctor.recipe import Recipe, outline_of
from tunepress.config.base_model import Source
from tunepress.models import architectures

PARAMETERS = {  # in millions, without an adapter
    "Phi-3-mini-4k-instruct": 3821,
    "Phi-4-mini-instruct": 3836,
    "Qwen3-0.6B": 596,
    "Qwen3-1.7B": 1721,
    "Qwen3-4B": 4022,
    "Llama-3.2-1B-Instruct": 1236,
    "Llama-3.2-3B-Instruct": 3213,
    "gemma-3-1b-it": 1000,
    "SmolLM2-135M-Instruct": 135,
    "SmolLM2-1.7B-Instruct": 1711,
    "SmolLM3-3B": 3075,
}


def test_each_model_of_the_hub_that_has_a_recipe_is_known() -> None:
    files = [OmegaConf.load(file) for file in (ROOT / "conf/base_model").glob("*.yaml")]
    names = {str(file.name) for file in files if file.source in ("huggingface", "wheel")}
    assert names == KNOWN.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_its_shape_has_the_parameters_of_its_model_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = Recipe.read(["base_model=folder", "base_model.path=unused"]).params
    random = replace(params.base_model, source=Source.random, architecture=KNOWN[name])
    model = outline_of(Recipe(replace(params, base_model=random), base_fetched=False))
    assert model is not None
    trained, parameters = model.get_nb_trainable_parameters()
    assert round((parameters - trained) / 1e6) == PARAMETERS[name]
    assert type(model.get_base_model()).__name__ in architectures.SUPPORTED
