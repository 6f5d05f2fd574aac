"""Architectures: what is called supported goes through train, merge and build as torch has it; the rest is refused by name."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
import pytest
from omegaconf import OmegaConf

from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.fetch import stage as fetch
from stages.merge import stage as merge
from stages.prepare import stage as prepare
from stages.train import stage as train
from stages.train.stage import load_base
from stages.train.trainer import BY_EXAMPLE, FlatteningCollator, summed_loss
from tests.stages.built import built
from tests.stages.merging import merge_in, new_adapter
from tests.stages.recipes import recipe
from tests.stages.training import new_repo, sections
from tests.tunepress.models.twins import DENSE, LINEAR, SHAPE, TOKENS, TWINS, logits, twin
from tools.cli.params import compose
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, write_json
from tunepress.core.params import load
from tunepress.core.paths import BASE, METRICS, ONNX
from tunepress.inference.onnx_model import OnnxModel
from tunepress.models import architectures
from tunepress.models.hf_model import load_model
from tunepress.models.random_model import write_random_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", TWINS)
def test_a_supported_model_passes_training_merge_and_build(name: str, tmp_path: Path) -> None:
    base = twin(tmp_path / "base", TWINS[name])
    architectures.check(base)
    losses_of_examples_are_their_own(base, "eager" if name == "gemma2" else BY_EXAMPLE)
    adapted = new_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    merged = merge_in(tmp_path / "project", base, tmp_path / "adapter")
    architectures.check(merged)
    expected = logits(load_model(merged))
    np.testing.assert_allclose(expected, logits(adapted), atol=1e-4, rtol=0)
    model = OnnxModel(built(recipe("fp32"), merged, tmp_path / "onnx"))
    for _, choice, values in model.logits([(TOKENS[:40], [TOKENS[40:], TOKENS[40:60]])]):
        np.testing.assert_allclose(values, expected[39:-1] if choice == 0 else expected[39:59], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_a_supported_model_passes_all_stages(name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_repo(tmp_path)
    params = OmegaConf.create(
        compose(["+experiment=smoke", "adapter.target_modules=all-linear", "data.max_samples=40", "data.test_size=0.01"])
    )
    params.base_model.architecture = SHAPE | TWINS[name]
    params.data.files = [str(root / file) for file in params.data.files]
    OmegaConf.save(params, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for stage in (fetch, prepare, train, merge, build):
        stage.main(load(stage.Config, []))
    for candidate in evaluate.CANDIDATES:
        evaluate.main(candidate, load(evaluate.Config, []))
    merged, onnx = (read_json(METRICS / f"evaluate/{candidate}.json") for candidate in ("merged", "onnx"))
    assert read_json(METRICS / "build.json")["algo_config"] == "gptq"
    assert math.log(onnx["perplexity"] / merged["perplexity"]) == pytest.approx(0, abs=0.1)
    assert OnnxModel(ONNX).answers(["Text: How kind!\nTone: "], 4)[0]


def losses_of_examples_are_their_own(base: Path, attention: str) -> None:
    """Two examples in one row have the losses that each has alone: nothing is carried from one to the next."""
    model, collator = load_model(base, attn_implementation=attention).train(), FlatteningCollator(attention == BY_EXAMPLE)
    examples = [{"input_ids": part, "labels": part} for part in (TOKENS[:45], TOKENS[45:])]
    together = summed_loss(model, collator([[example] for example in examples]))[0]
    alone = sum(summed_loss(model, collator([[example]]))[0].item() for example in examples)
    assert together.item() == pytest.approx(alone, abs=1e-3)
    together.backward()


def test_each_type_of_rope_in_the_table_has_a_twin(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}
    for number, fields in enumerate(TWINS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_random_model(SHAPE | fields, 0, folder)
        config = read_json(folder / "config.json")
        seen.setdefault(config["architectures"][0], set()).update(architectures.rope_types(config))
    assert seen == {name: set(types) for name, types in architectures.SUPPORTED.items()}


def test_the_tables_name_what_the_installed_builder_lists() -> None:
    builder = Path(inspect.getfile(onnxruntime_genai)).with_name("models") / "builder.py"
    listed = set(re.findall(r'architectures\[0\] == "(\w+)"', builder.read_text()))
    renamed = {"PhiMoEForCausalLM": "PhimoeForCausalLM"}  # the builder's name, and transformers'
    assert {renamed.get(name, name) for name in listed} == architectures.SUPPORTED.keys() | architectures.UNSUPPORTED.keys()


HYBRID = {"architectures": ["GraniteMoeHybridForCausalLM"], "position_embedding_type": "rope", **DENSE}
YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["Lfm2ForCausalLM"]}, "Lfm2ForCausalLM is not supported (onnxruntime-genai cannot rewind its "),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"]},
            "Gemma3ForConditionalGeneration is not supported (it reads images too); use a model of ",
        ),
        ({}, "a model without architectures is not supported; use a model of Ernie4_5ForCausalLM, "),
        (
            HYBRID | {"layer_types": ["mamba", "attention"]},
            "GraniteMoeHybridForCausalLM is supported only with attention, rope and ",
        ),
        (HYBRID | {"num_local_experts": 4}, "GraniteMoeHybridForCausalLM is supported only with attention, rope and no experts"),
        (HYBRID | {"position_embedding_type": None}, "GraniteMoeHybridForCausalLM is supported only with attention, rope and "),
        (
            {"architectures": ["Qwen3ForCausalLM"], "rope_scaling": YARN},
            "rope of type yarn is not supported for Qwen3ForCausalLM, only default; ",
        ),
        (
            {"architectures": ["LlamaForCausalLM"], "rope_parameters": LINEAR},
            "rope of type linear is not supported for LlamaForCausalLM, only default and llama3; ",
        ),
        (
            {"architectures": ["Gemma3ForCausalLM"], "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {}}},
            "rope of type linear is not supported for Gemma3ForCausalLM, only default; ",
        ),
        (
            {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq", "bits": 4}},
            "the weights are already quantized (gptq); use the model in 16 or 32 bits, build quantizes it",
        ),
    ],
)
def test_what_is_not_supported_is_refused_with_the_reason(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", config)
    with pytest.raises(InputError) as raised:
        architectures.check(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/config.json: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "rope",
    [{"type": "su"}, {"type": "longrope"}, {"rope_type": "longrope", "type": "su"}, {"rope_type": "default"}, None],
    ids=str,
)
def test_longrope_has_several_names(rope: dict[str, str] | None) -> None:
    assert architectures.unsupported_reason({"architectures": ["Phi3ForCausalLM"], "rope_scaling": rope, "auto_map": {}}) is None


def test_training_says_which_attention_gemma2_needs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / BASE).parent.mkdir()
    twin(tmp_path / BASE, TWINS["gemma2"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        load_base(sections(root, attn_implementation="sdpa"))
    assert str(raised.value) == "train.attn_implementation: sdpa cannot compute this model's attention; set eager"
    assert load_base(sections(root)).config._attn_implementation == "eager"
