"""A model run layer by layer computes what it computes as a whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Linear, Module

from stages.build.quantize.layers import modules_by_input, run, second_moment
from stages.build.quantize.offloaded_model import Batch, OffloadedModel
from tests.stages.build.quantize.test_offloaded_model import MODELS, SHAPE
from tests.stages.merging import disturbed_model
from tunepress.models.hf_model import load_model

SEQUENCES = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 19], [20]]


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disturbed_model(tmp_path_factory.mktemp(request.param), SHAPE | MODELS[request.param])


def first_layer(folder: Path) -> tuple[Module, list[Batch]]:
    model = OffloadedModel(folder)
    batches = model.embed(SEQUENCES)
    return model.layers[next(model.load_layers())], batches


def test_the_hidden_states_are_those_of_the_whole_model(folder: Path) -> None:
    model = OffloadedModel(folder)
    batches = model.embed(SEQUENCES)
    for number, name in enumerate(model.load_layers()):
        for batch, hidden in zip(batches, run(model.layers[name], number, batches), strict=True):
            batch.hidden = hidden
    whole, seen = load_model(folder).eval(), dict[str, Any]()
    whole.get_decoder().layers[-1].register_forward_hook(lambda _, inputs, output: seen.update(hidden=output))
    for batch, tokens in zip(batches, ([SEQUENCES[3]], SEQUENCES[:2], [SEQUENCES[2]]), strict=True):
        with torch.no_grad():
            whole(input_ids=torch.tensor(tokens))
        torch.testing.assert_close(batch.hidden, seen["hidden"])


def test_modules_with_one_input_are_rounded_together_and_in_the_order_they_run(folder: Path) -> None:
    layer, batches = first_layer(folder)
    groups = modules_by_input(layer, 0, batches[0])
    names = [[name.rpartition(".")[2] for name in group] for group in groups]
    fused = folder.name.startswith(("phi3", "phi4"))
    attention = [["qkv_proj"]] if fused else [["q_proj", "k_proj", "v_proj"]]
    if folder.name.startswith("phi0"):  # its attention and its MLP read the same norm
        assert names == [["q_proj", "k_proj", "v_proj"], ["dense"], ["fc1"], ["fc2"]]
    elif "hybrid" in folder.name:
        assert names == [*attention, ["o_proj"], ["input_linear"], ["output_linear"]]
    else:
        up = ["gate_up_proj"] if fused else ["gate_proj", "up_proj"]
        assert names == [*attention, ["o_proj"], up, ["down_proj"]]
    modules = [name for name, module in layer.named_modules() if isinstance(module, Linear)]
    assert sorted(name for group in groups for name in group) == sorted(modules)


def test_the_second_moment_counts_every_token_once(folder: Path) -> None:
    layer, batches = first_layer(folder)
    first = modules_by_input(layer, 0, batches[0])[0][0]
    with torch.no_grad():
        inputs = torch.cat([layer.get_submodule("input_layernorm")(batch.hidden).flatten(0, 1) for batch in batches])
    assert len(inputs) == sum(len(tokens) for tokens in SEQUENCES)
    torch.testing.assert_close(second_moment(layer, 0, batches, first), inputs.t() @ inputs)


def test_a_layer_is_read_when_it_is_needed(folder: Path) -> None:
    model = OffloadedModel(folder)
    model.embed(SEQUENCES)
    for number, _ in enumerate(model.load_layers()):
        loaded = [not any(weight.is_meta for weight in layer.parameters()) for layer in model.layers.values()]
        assert loaded == [True] * (number + 1) + [False] * (len(loaded) - number - 1)
