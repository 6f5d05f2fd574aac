"""lora: the factors of an adapter are what peft would merge, and an adapter that is more than LoRA is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from stages.build.adapters.lora import load
from tests.stages.random_adapter import write_random_adapter
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import load_model


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"r": 6, "lora_alpha": 5},
        {"use_rslora": True},
        {"target_modules": ["qkv_proj", "down_proj"]},
        {"rank_pattern": {"o_proj": 2, "layers.1.mlp.down_proj": 8}, "alpha_pattern": {"o_proj": 32}},
    ],
)
def test_the_product_of_a_layers_factors_is_what_peft_adds_to_its_weight(
    fields: dict[str, Any], tiny_phi3: Path, tmp_path: Path
) -> None:
    adapted = PeftModel.from_pretrained(load_model(tiny_phi3), write_random_adapter(tiny_phi3, tmp_path, **fields))
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, "get_delta_weight")}
    expected = {
        name.removeprefix("base_model.model.").replace("self_attn", "attn"): module.get_delta_weight("default")
        for name, module in layers.items()
    }
    actual = load(tmp_path)
    assert actual.keys() == expected.keys()
    for name, factors in actual.items():
        torch.testing.assert_close(factors.b @ factors.a, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["norm"]}, "norm.weight"),
        ({"lora_bias": True, "target_modules": ["o_proj"]}, "lora_B.bias"),
        ({"target_modules": ["o_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ["o_proj", "embed_tokens"]}, "embed_tokens"),
    ],
)
def test_an_adapter_that_is_more_than_lora_on_layers_is_refused(
    fields: dict[str, Any], named: str, tiny_phi3: Path, tmp_path: Path
) -> None:
    write_random_adapter(tiny_phi3, tmp_path, **fields)
    with pytest.raises(InputError, match=rf"{named}.*set build\.adapters=merged$"):
        load(tmp_path)


def test_an_adapter_that_makes_up_for_a_quantization_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    write_random_adapter(tiny_phi3, tmp_path)
    Quantization("nf4", True, compensated=False, dtype="float32").save(tmp_path)
    assert load(tmp_path)  # a QLoRA adapter without loftq is an adapter of the original weights as well
    Quantization("nf4", True, compensated=True, dtype="float32").save(tmp_path)
    with pytest.raises(InputError, match="initialised by loftq"):
        load(tmp_path)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_refused(missing: str, tiny_phi3: Path, tmp_path: Path) -> None:
    write_random_adapter(tiny_phi3, tmp_path / "adapter")
    (tmp_path / "adapter" / missing).unlink()
    with pytest.raises(InputError, match=rf"adapter/{missing}: not found"):
        load(tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"adapter/adapter_config\.json: not found"):
        load(tmp_path / "adapter")
