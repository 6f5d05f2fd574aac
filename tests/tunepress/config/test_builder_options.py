"""builder_options: what the installed builder knows, and a recipe that it does not is told what to write instead."""

import ast
import importlib.util
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.stages.recipes import recipe
from tunepress.config import builder_options
from tunepress.config.build import Build
from tunepress.core.errors import InputError

RECIPES = sorted(path.stem for path in (Path(__file__).resolve().parents[3] / "conf/build").glob("*.yaml"))
INTERNAL = {"hf_details"}  # what the builder hands itself among the options, beside names with an underscore before them


def refused(build: Build) -> str:
    said = builder_options.refusal(build)
    assert said
    assert "\n" not in said
    return said


def package() -> Path:
    spec = importlib.util.find_spec("onnxruntime_genai")
    assert spec and spec.origin
    return Path(spec.origin).parent


# what is known


def test_every_option_that_the_builders_code_reads_is_known() -> None:
    read: set[str] = set()
    for module in (package() / "models").rglob("*.py"):
        code = ast.unparse(ast.parse(module.read_text(encoding="utf-8")))
        read |= set(re.findall(r"extra_options(?:\.get\(|\[|\.pop\()'([a-z]\w*)'", code))
        read |= set(re.findall(r"'([a-z]\w*)' (?:not )?in (?:self\.)?extra_options", code))
    assert len(read) > 50
    assert read - INTERNAL <= builder_options.options().keys()


def test_the_options_that_are_keys_of_build_are_among_them() -> None:
    own = {"adapters", "n_samples"}
    keys = {field.name for field in fields(Build)} - own - {"precision", "execution_provider", "extra_options"}
    assert keys <= builder_options.options().keys()


def test_reasons_are_given_for_options_that_there_are() -> None:
    assert builder_options.UNFIT.keys() <= builder_options.options().keys()


def test_targets_are_those_of_the_builders_own_list() -> None:
    assert builder_options.targets() == {
        "cpu": ["fp32", "int8", "int4"],
        "cuda": ["fp32", "fp16", "bf16", "int8", "int4"],
        "dml": ["fp16", "int4"],
        "NvTensorRtRtx": ["fp16", "bf16"],
        "webgpu": ["int8", "int4"],
    }


def test_every_target_has_a_recipe_and_every_recipe_says_in_its_first_line_what_it_is_for(root: Path) -> None:
    covered = set()
    for name in RECIPES:
        text = (root / f"conf/build/{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# "), name
        chosen = OmegaConf.load(root / f"conf/build/{name}.yaml")
        assert name.startswith({"NvTensorRtRtx": "trt_rtx"}.get(chosen.execution_provider, chosen.execution_provider))
        covered.add((chosen.precision, chosen.execution_provider))
    listed = {(precision, provider) for provider, precisions in builder_options.targets().items() for precision in precisions}
    assert covered == listed - builder_options.BROKEN.keys()


# what is refused


@pytest.mark.parametrize(
    ("precision", "execution_provider", "said"),
    [
        ("int3", "cpu", "build.precision: the builder has no int3 for cpu, only cpu: fp32, int8, int4; cuda: fp32, "),
        ("fp16", "cpu", "build.precision: the builder has no fp16 for cpu, only cpu: fp32, "),
        ("int4", "abacus", "build.execution_provider: the builder has no int4 for abacus, only cpu: fp32, "),
        ("int4", "NvTensorRtRtx", "build.precision: the builder has no int4 for NvTensorRtRtx, only "),
        ("fp16", "trt-rtx", "build.execution_provider: trt-rtx is called NvTensorRtRtx on its command line"),
        (
            "fp32",
            "cuda",
            "build.precision: the builder writes a broken graph in fp32 for cuda; set build.precision to bf16 or fp16",
        ),
    ],
)
def test_a_target_that_the_builder_does_not_list_comes_with_those_it_does(
    precision: str, execution_provider: str, said: str
) -> None:
    assert refused(recipe(precision, execution_provider)).startswith(said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("shared_embedings", True, "did you mean build.extra_options.shared_embeddings?"),
        ("zzzz", 1, "unknown key build.extra_options.zzzz; known here: aux_hidden_state_layers, enable_cuda_fpa_intb_gemm, "),
        ("int4_algo_config", "rtn", "build.extra_options.int4_algo_config: is now called algo_config; set build.algo_config"),
        ("int4_block_size", 32, "is now called block_size; set build.block_size"),
        ("int4_op_types_to_quantize", "MatMul", "called op_types_to_quantize; set build.extra_options.op_types_to_quantize"),
        ("use_8bits_moe", True, "is now called moe_quant_type; set build.extra_options.moe_quant_type"),
        ("disable_qkv_fusion", True, "is now called fuse_qkv; set build.extra_options.fuse_qkv"),
        ("block_size", 32, "build.extra_options.block_size: is a key of its own; set build.block_size"),
        ("precision", "int4", "is a key of its own; set build.precision"),
        ("adapter_path", "models/adapter", "the adapter is in the weights"),
        ("exclude_embeds", True, "evaluate, compare and predict want a whole model"),
        ("dflash2_path", "elsewhere", "a drafter is a model of its own"),
        ("op_types_to_quantize", ["MatMul", "Gather"], "is no single value; write it as on the builder's command line"),
        ("fuse_qkv", None, "None is no single value"),
        ("mtp_quant_config", "mtp.json", "write the object itself"),
    ],
)
def test_an_option_that_cannot_be_given_says_what_to_write_instead(name: str, value: Any, said: str) -> None:
    assert said in refused(recipe(extra_options={name: value}))


def test_no_option_that_is_suggested_is_one_that_is_refused() -> None:
    listed = refused(recipe(extra_options={"zzzz": 1})).partition("known here: ")[2].split(", ")
    assert len(listed) > 25
    for name in listed:
        value = "{}" if name == "mtp_quant_config" else 1
        assert builder_options.refused_option(name, value) is None, name


@pytest.mark.parametrize("block_size", [0, 8, 24, 512])
def test_a_block_size_that_the_quantizer_does_not_have_is_refused(block_size: int) -> None:
    assert refused(recipe(block_size=block_size)) == f"build.block_size: {block_size} is none of 16, 32, 64, 128, 256"


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_of_the_project_is_refused(name: str, root: Path) -> None:
    chosen = OmegaConf.merge(OmegaConf.structured(Build), OmegaConf.load(root / f"conf/build/{name}.yaml"))
    build = OmegaConf.to_object(chosen)
    assert isinstance(build, Build)
    assert builder_options.refusal(build) is None


# what goes to the builder


def test_options_go_to_the_builder_as_on_its_command_line_and_those_left_to_it_do_not() -> None:
    build = recipe(block_size=64, is_symmetric=False, nodes_to_exclude=["/a", "/b"], extra_options={"fuse_qkv": False})
    assert builder_options.key_value_pairs(build) == [
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
        builder_options.check_model(recipe(), model(tmp_path, architectures=names))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/config.json: {(names or ['a model without architectures'])[0]} is not supported; ")
    assert "LlamaForCausalLM" in message
    assert "\n" not in message


def test_directml_wants_blocks_that_divide_the_model_and_the_others_do_not(tmp_path: Path) -> None:
    folder = model(tmp_path)
    for provider in ("cpu", "cuda", "webgpu"):
        builder_options.check_model(recipe(execution_provider=provider, block_size=128), folder)
    builder_options.check_model(recipe(execution_provider="dml", block_size=64), folder)
    builder_options.check_model(recipe("fp16", "dml", block_size=128), folder)
    with pytest.raises(InputError) as raised:
        builder_options.check_model(recipe(execution_provider="dml", block_size=128), folder)
    assert str(raised.value) == (
        f"build.block_size: 128 does not fit hidden_size, 576 in {folder}: dml wants full blocks, so that it divides the width; "
        "set it to 16 or 32 or 64"
    )
    with pytest.raises(InputError, match=r"32 does not fit hidden_size, 120 in .*; no size fits here$"):
        builder_options.check_model(recipe(execution_provider="dml"), model(tmp_path, hidden_size=120))


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
        return builder_options.check_model(chosen, folder)
    with pytest.raises(
        InputError, match=rf"128 does not fit hidden_size, 576 in .*: {algo_config} wants an even number of blocks"
    ):
        builder_options.check_model(chosen, folder)
    return builder_options.check_model(recipe("int8", algo_config=algo_config, is_symmetric=is_symmetric, block_size=128), folder)


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
        builder_options.check_model(recipe(algo_config="k_quant"), model(tmp_path, **config))
