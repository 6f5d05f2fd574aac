"""The estimate of a training's memory, part by part, against what torch and bitsandbytes keep."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from stages.train import estimate
from stages.train import stage as train
from stages.train.adapter import lora_config, outline, with_adapter
from stages.train.estimate import estimated_bytes
from stages.train.trainer import BY_EXAMPLE, FlatteningCollator, summed_loss
from tests.stages.training import sections
from tunepress.core.paths import BASE
from tunepress.models.hf_model import load_model


def model_of(folder: Path, root: Path, dtype: torch.dtype = torch.float32) -> PeftModel:
    return with_adapter(load_model(folder, dtype=dtype, attn_implementation=BY_EXAMPLE), sections(root).adapter, 0, folder)


def beyond_runtime(model: PeftModel, root: Path, tokens: int = 0, labels: int = 0, **settings: Any) -> int:
    """The estimate without Python and its packages."""
    return estimated_bytes(model, sections(root, **settings).train, False, tokens, labels) - int(estimate.RUNTIME)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", torch.optim.SGD),
        ("adagrad", torch.optim.Adagrad),
        ("rmsprop", torch.optim.RMSprop),
        ("adamw_torch_fused", torch.optim.AdamW),
    ],
)
def test_without_a_batch_it_is_what_torch_keeps_of_weights_gradients_and_optimizer(
    name: str, optimizer: Any, bf16: bool, tiny_phi3: Path, root: Path
) -> None:
    model = model_of(tiny_phi3, root, torch.bfloat16 if bf16 else torch.float32)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    made = optimizer(trained, lr=1e-3)
    made.step()
    moments = [value for state in made.state.values() for value in state.values() if torch.is_tensor(value) and value.dim()]
    kept = [*model.parameters(), *(weight.grad for weight in trained if weight.grad is not None), *moments]
    assert beyond_runtime(model, root, optim=name, bf16=bf16) == sum(tensor.nbytes for tensor in kept)


@pytest.mark.parametrize(
    ("name", "each"), [("lion_32bit", 4), ("adamw_bnb_8bit", 2), ("paged_adamw_8bit", 2), ("adafactor", 0.1), ("adamw_torch", 8)]
)
def test_optimizers_keep_as_many_bytes_for_each_trained_parameter(name: str, each: float, tiny_phi3: Path, root: Path) -> None:
    model = model_of(tiny_phi3, root)
    trained, _ = model.get_nb_trainable_parameters()
    assert beyond_runtime(model, root, optim=name) - beyond_runtime(model, root, optim="sgd") == int(trained * each)


def test_weights_in_4_bits_take_what_bitsandbytes_packs_them_into(inside: Path, root: Path) -> None:
    plain = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False}
    cfg = sections(root, adapter={"method": "qlora"} | plain, optim="sgd")
    shapes = outline(BASE, cfg.adapter)
    floats = estimate.dequantized_bytes([weight.numel() * 4 for weight in linear_weights(shapes)], on_cpu=True)
    packed = with_adapter(train.load_base(cfg), cfg.adapter, 0, BASE)
    scales = [weight.quant_state.absmax for weight in packed.parameters() if hasattr(weight, "quant_state")]
    assert len(scales) == len(linear_weights(shapes)) == 8
    gradients = [weight for weight in packed.parameters() if weight.requires_grad]
    kept = sum(tensor.nbytes for tensor in [*packed.parameters(), *scales, *gradients])
    assert estimated_bytes(shapes, cfg.train, True, 0, 0) == int(estimate.RUNTIME) + kept + floats


def linear_weights(model: PeftModel) -> list[torch.Tensor]:
    """The weights that are quantized: of the layers and not of the head."""
    return [weight for name, weight in model.named_parameters() if name.endswith("_proj.base_layer.weight")]


def saved_bytes(model: PeftModel, tokens: int, labels: int) -> int:
    """What autograd keeps for the backward pass of a batch, the weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    text = [number % 250 for number in range(tokens)]
    batch = FlatteningCollator(boundaries=True)(
        [[{"input_ids": text, "labels": [-100] * (tokens - labels) + text[tokens - labels :]}]]
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _, _ = summed_loss(model.train(), batch)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("tokens", "labels"), [(200, 20), (400, 200)])
def test_a_batch_needs_what_autograd_keeps_to_a_third_and_more_on_a_cpu(
    tokens: int, labels: int, tiny_phi3: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tiny_phi3, root)
    on_cpu = beyond_runtime(model, root, tokens, labels) - beyond_runtime(model, root)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_gpu = beyond_runtime(model, root, tokens, labels) - beyond_runtime(model, root)
    kept = saved_bytes(model, tokens, labels)
    assert kept < on_gpu < kept * 4 / 3
    assert on_gpu * 1.2 < on_cpu < on_gpu * 1.5


def test_each_label_needs_its_logits_three_times_in_float32(tiny_phi3: Path, root: Path) -> None:
    model = model_of(tiny_phi3, root)
    for bf16 in (False, True):
        estimates = [beyond_runtime(model, root, 400, labels, bf16=bf16) for labels in (0, 50)]
        assert estimates[1] - estimates[0] == 50 * 260 * 4 * 3


def test_checkpointing_keeps_one_block_and_the_inputs_of_all_or_half_on_a_cpu(
    tiny_phi3: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(tiny_phi3, num_hidden_layers=8)
    model = get_peft_model(AutoModelForCausalLM.from_config(config), lora_config(sections(root).adapter, False))

    def kept(**settings: Any) -> int:
        return beyond_runtime(model, root, 300, 0, **settings) - beyond_runtime(model, root, **settings)

    assert kept(gradient_checkpointing=True) == kept() // 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert kept(gradient_checkpointing=True) == pytest.approx(kept() / 8 + 300 * 64 * 8 * 4, abs=1)
    assert kept(gradient_checkpointing=True, bf16=True) == pytest.approx(kept(gradient_checkpointing=True) / 2, abs=1)


def test_a_small_weight_in_4_bits_leaves_a_hole_in_a_cpus_heap_and_a_large_one_does_not() -> None:
    least = 32 << 20  # from this size on, glibc gives memory back (mallopt(3), M_MMAP_THRESHOLD_MAX)
    assert estimate.dequantized_bytes([least - 1, least], on_cpu=True) == 2 * (least + least - 1)
    assert estimate.dequantized_bytes([least, least], on_cpu=True) == 2 * least


def test_on_a_gpu_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert estimate.peak_gpu_bytes() == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 9))  # free and all
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5)
    assert estimate.available_bytes() == 7
    assert estimate.peak_gpu_bytes() == 5
