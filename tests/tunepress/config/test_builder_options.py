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
from tools.cli.builder_options import installed
from tunepress.config import builder_options
from tunepress.config.build import Build, option_problem, problem

RECIPES = sorted(path.stem for path in (Path(__file__).resolve().parents[3] / "conf/build").glob("*.yaml"))
INTERNAL = {"hf_details"}  # what the builder hands itself among the options, beside names with an underscore before them


def refused(build: Build) -> str:
    message = problem(build)
    assert message
    assert "\n" not in message
    return message


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


def test_the_file_is_what_the_installed_builder_offers() -> None:
    assert json.loads(builder_options.FILE.read_text(encoding="utf-8")) == installed(), (
        "another onnxruntime-genai is installed; run python -m tools.cli.builder_options and read what changed"
    )


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
    ("precision", "execution_provider", "message"),
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
    precision: str, execution_provider: str, message: str
) -> None:
    assert refused(recipe(precision, execution_provider)).startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
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
        ("adapter_path", "models/adapter", "the adapter is in the weights already"),
        ("exclude_embeds", True, "evaluate, compare and predict need a whole model"),
        ("dflash2_path", "elsewhere", "a drafter is a model of its own"),
        ("op_types_to_quantize", ["MatMul", "Gather"], "must be a single value as on the builder's command line"),
        ("fuse_qkv", None, "such as MatMul/Gather or 1,2, got None"),
        ("mtp_quant_config", "mtp.json", "must be a JSON object, got 'mtp.json'"),
    ],
)
def test_an_option_that_cannot_be_given_says_what_to_write_instead(name: str, value: Any, message: str) -> None:
    assert message in refused(recipe(extra_options={name: value}))


def test_no_option_that_is_suggested_is_one_that_is_refused() -> None:
    listed = refused(recipe(extra_options={"zzzz": 1})).partition("known here: ")[2].split(", ")
    assert len(listed) > 25
    for name in listed:
        value = "{}" if name == "mtp_quant_config" else 1
        assert option_problem(name, value) is None, name


@pytest.mark.parametrize("block_size", [0, 8, 24, 512])
def test_a_block_size_that_the_quantizer_does_not_have_is_refused(block_size: int) -> None:
    assert refused(recipe(block_size=block_size)) == f"build.block_size: must be one of 16, 32, 64, 128, 256, got {block_size}"


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_of_the_project_is_refused(name: str, root: Path) -> None:
    chosen = OmegaConf.merge(OmegaConf.structured(Build), OmegaConf.load(root / f"conf/build/{name}.yaml"))
    build = OmegaConf.to_object(chosen)
    assert isinstance(build, Build)
    assert problem(build) is None
