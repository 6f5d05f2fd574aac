"""A model run layer by layer computes what it computes as a whole."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.build.quantize.layers import OffloadedModel, modules_by_input, run, second_moment
from tests.stages.build.quantize.test_checkpoint import MODELS, SHAPE
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model

SEQUENCES = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 19], [20]]


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    write_random_model({"model_type": request.param, **SHAPE, **MODELS[request.param]}, 0, made)
    return made


def test_the_hidden_states_are_those_of_the_whole_model(folder: Path) -> None:
    model = OffloadedModel(folder)
    batches = model.embed(SEQUENCES)
    for number, layer in model.load_layers():
        for batch, hidden in zip(batches, run(layer, number, batches), strict=True):
            batch.hidden = hidden
    whole = load_model(folder).eval()
    seen: dict[str, Any] = {}
    whole.get_decoder().norm.register_forward_pre_hook(lambda _, values: seen.update(hidden=values[0]))
    for batch, tokens in zip(batches, ([SEQUENCES[3]], SEQUENCES[:2], [SEQUENCES[2]]), strict=True):
        with torch.no_grad():
            whole(input_ids=torch.tensor(tokens))
        torch.testing.assert_close(batch.hidden, seen["hidden"])


def test_modules_with_one_input_are_rounded_together_and_in_the_order_they_run(folder: Path) -> None:
    model = OffloadedModel(folder)
    batches = model.embed(SEQUENCES)
    number, layer = next(model.load_layers())
    fused = [["self_attn.qkv_proj"], ["self_attn.o_proj"], ["mlp.gate_up_proj"], ["mlp.down_proj"]]
    apart = [
        [f"self_attn.{letter}_proj" for letter in "qkv"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    assert modules_by_input(layer, number, batches[0]) == (fused if "phi3" in folder.name else apart)


def test_the_second_moment_counts_every_token_once(folder: Path) -> None:
    model = OffloadedModel(folder)
    batches = model.embed(SEQUENCES)
    number, layer = next(model.load_layers())
    first = modules_by_input(layer, number, batches[0])[0][0]
    with torch.no_grad():
        inputs = torch.cat([layer.get_submodule("input_layernorm")(batch.hidden).flatten(0, 1) for batch in batches])
    assert len(inputs) == sum(len(tokens) for tokens in SEQUENCES)
    torch.testing.assert_close(second_moment(layer, number, batches, first), inputs.t() @ inputs)


def test_one_layer_is_in_memory_at_a_time(folder: Path) -> None:
    model = OffloadedModel(folder)
    model.embed(SEQUENCES)
    for number, _ in model.load_layers():
        loaded = [place for place, layer in enumerate(model.layers) if next(layer.parameters()).device.type != "meta"]
        assert loaded == [number]
