"""last_layer: positions without logits are skipped, and no logit, gradient or other position notices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stages.train.adapter import with_adapter
from stages.train.last_layer import skip_unread_positions
from tunepress.config.adapter import Adapter, Method
from tunepress.models.hf_model import load_model

TOKENS = torch.tensor([[5, 80, 200, 17, 3, 99]])
KEPT = torch.tensor([1, 4])
LORA = Adapter(Method.lora, 4, 32, 0.0, "all-linear", True, None, None, None)
ARCHITECTURES = {
    "llama": ["mlp", "self_attn.o_proj", "self_attn.q_proj"],
    "qwen3": ["mlp", "self_attn.o_proj", "self_attn.q_proj"],
    "gemma2": ["mlp", "self_attn.o_proj", "self_attn.q_proj"],
    "phi3": ["mlp", "self_attn.o_proj"],
    "gpt2": [],
}


def made(architecture: str) -> Any:
    """A small random model, without dropout."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "head_dim": 8} if architecture != "gpt2" else {}
    config = AutoConfig.for_model(architecture, vocab_size=256, pad_token_id=0, **sizes, **heads)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def learned(model: Any, **options: Any) -> list[torch.Tensor]:
    """Logits of the kept positions and all gradients of a loss of theirs."""
    model.zero_grad()
    logits = model(input_ids=TOKENS, logits_to_keep=KEPT, use_cache=False, **options).logits
    logits.square().sum().backward()
    return [logits, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize(("architecture", "names"), ARCHITECTURES.items())
def test_logits_and_gradients_stay_the_same(architecture: str, names: list[str]) -> None:
    model = made(architecture)
    expected = learned(model)
    assert skip_unread_positions(model) == names
    torch.testing.assert_close(learned(model), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_learns_the_same(checkpointing: bool, tiny_phi3: Path) -> None:
    model = with_adapter(load_model(tiny_phi3, dtype=torch.float32), LORA, 0, tiny_phi3).train()
    expected = learned(model)
    skip_unread_positions(model.get_base_model())
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(learned(model), expected)


def test_only_kept_positions_are_computed_and_in_the_last_layer() -> None:
    model, seen = made("llama"), []
    skip_unread_positions(model)
    for layer in model.model.layers:
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj"):
            layer.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    model(input_ids=TOKENS, logits_to_keep=KEPT)
    assert sorted(seen) == sorted([6, 6, 6, 6, 2, 6, 2, 2])


@pytest.mark.parametrize("kept", [0, 1, 3, torch.tensor([], dtype=torch.long)])
def test_any_other_pass_is_as_before(kept: Any) -> None:
    model, options = made("llama"), {"input_ids": TOKENS, "output_hidden_states": True}
    with torch.inference_mode():
        expected = model(logits_to_keep=kept, **options)
        skip_unread_positions(model)
        model(input_ids=TOKENS, logits_to_keep=KEPT)
        actual = model(logits_to_keep=kept, **options)
    assert torch.equal(actual.logits, expected.logits)
    assert all(torch.equal(*pair) for pair in zip(actual.hidden_states, expected.hidden_states, strict=True))


def test_generation_is_as_before() -> None:
    model = made("llama")
    expected = model.generate(TOKENS, max_new_tokens=5, do_sample=False)
    skip_unread_positions(model)
    assert torch.equal(model.generate(TOKENS, max_new_tokens=5, do_sample=False), expected)
