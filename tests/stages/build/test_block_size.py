"""A recipe fits a model folder, or a line says which block size does; and what of a recipe goes to the builder."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.build.block_size import check_model
from stages.build.builder import key_value_pairs
from stages.build.stage import automatic
from tests.stages.recipes import recipe
from tunepress.config.build import Adapters
from tunepress.core.errors import InputError

# what goes to the builder


def test_options_go_to_the_builder_as_on_its_command_line_and_those_left_to_it_do_not() -> None:
    build = recipe(block_size=64, is_symmetric=False, nodes_to_exclude=["/a", "/b"], extra_options={"fuse_qkv": False})
    assert key_value_pairs(build) == [
        "block_size=64",
        "is_symmetric=False",
        "nodes_to_exclude=/a,/b",
        "fuse_qkv=False",
    ]


# the model


def model(folder: Path, **changed: Any) -> Path:
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "num_attention_heads": 9, "intermediate_size": 1536}
    (folder / "config.json").write_text(json.dumps(config | changed), encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", [["GPT2LMHeadModel"], [], None])
def test_an_architecture_that_is_not_supported_comes_with_those_that_are(names: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        check_model(recipe(), model(tmp_path, architectures=names))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/config.json: {(names or ['a model without architectures'])[0]} is not supported; ")
    assert "LlamaForCausalLM" in message
    assert "\n" not in message


def test_directml_wants_blocks_that_divide_the_model_and_the_others_do_not(tmp_path: Path) -> None:
    folder = model(tmp_path)
    for provider in ("cpu", "cuda", "webgpu"):
        check_model(recipe(execution_provider=provider, block_size=128), folder)
    check_model(recipe(execution_provider="dml", block_size=64), folder)
    check_model(recipe("fp16", "dml", block_size=128), folder)
    with pytest.raises(InputError) as raised:
        check_model(recipe(execution_provider="dml", block_size=128), folder)
    assert str(raised.value) == (
        f"build.block_size: 128 does not fit hidden_size, 576 in {folder}: dml needs full blocks, "
        "so the size must divide the width; set it to 16 or 32 or 64"
    )
    with pytest.raises(InputError, match=r"32 does not fit hidden_size, 120 in .*; no size fits here$"):
        check_model(recipe(execution_provider="dml"), model(tmp_path, hidden_size=120))


@pytest.mark.parametrize(
    ("algo_config", "is_symmetric", "refused"),
    [(None, False, False), ("rtn", None, False), ("rtn", False, True), ("k_quant", True, True), ("k_quant_mixed", None, True)],
)
def test_zero_points_in_pairs_want_an_even_number_of_blocks(
    algo_config: str | None, is_symmetric: bool | None, refused: bool, tmp_path: Path
) -> None:
    """What tests/stages/build/test_build_targets.py sees the builder do."""
    folder = model(tmp_path)
    chosen = recipe(algo_config=algo_config, is_symmetric=is_symmetric, block_size=128)
    if not refused:
        return check_model(chosen, folder)
    with pytest.raises(
        InputError, match=rf"128 does not fit hidden_size, 576 in .*: {algo_config} needs an even number of blocks"
    ):
        check_model(chosen, folder)
    return check_model(recipe("int8", algo_config=algo_config, is_symmetric=is_symmetric, block_size=128), folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}, "intermediate_size, 96"),
        ({"hidden_size": 64, "num_attention_heads": 2, "head_dim": 48}, "num_attention_heads x head_dim, 96"),
        ({"text_config": {"hidden_size": 96}, "hidden_size": None}, "hidden_size, 96"),
    ],
)
def test_the_product_that_does_not_fit_is_named(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"32 does not fit {named} in "):
        check_model(recipe(algo_config="k_quant"), model(tmp_path, **config))


def test_auto_is_what_fits_the_model(tmp_path: Path) -> None:
    folder, auto = model(tmp_path), {"algo_config": "auto"}
    assert automatic(recipe(**auto), None, folder) == "gptq"
    assert automatic(recipe(**auto), "a reason", folder) == "k_quant_mixed"
    assert automatic(recipe(**auto, adapters=Adapters.separate), None, folder) == "k_quant_mixed"
    assert automatic(recipe(**auto, block_size=128), "576 is not divided by it", folder) is None  # 5 blocks, not even
    assert automatic(recipe("int8", **auto), "a reason", folder) is None
