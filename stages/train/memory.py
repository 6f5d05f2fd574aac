"""Memory that a training needs, estimated from the model's shapes before any weight is read, and what the device has."""

import psutil
import torch
from peft import PeftModel

from tunepress.config.train import Train
from tunepress.core.cgroups import memory_left

# Bytes that an optimizer keeps for each trained parameter; any other keeps two float32 moments.
OPTIMIZER_BYTES = {"sgd": 0, "adafactor": 0.1, "lion_32bit": 4, "adagrad": 4, "rmsprop": 4}
MOMENTS, MOMENTS_8BIT = 8, 2
FOUR_BITS = 4.5 / 8  # bytes of a 4-bit weight with a float32 scale for each 64
RUNTIME = 0.62e9  # Python with torch, transformers, peft and a tokenizer, before there is a model

# Kept for the backward pass, for each value that a linear layer gives: itself, and what the norm, the activation or the
# product behind it keep. Measured on SmolLM2-135M in float32. A CPU's is more, for C's heap is full of holes, and
# checkpointing lowers it by half alone: blocks below 32 MB stay in the heap when they are freed (mallopt(3)).
KEPT_PER_OUTPUT, KEPT_PER_OUTPUT_ON_CPU = 2.6, 3.5
CHECKPOINTED_ON_CPU = 0.5
HEAP_BLOCK = 32 << 20
LOGIT_COPIES = 3  # logits in float32, their log-softmax, their gradient


def estimated_bytes(model: PeftModel, train: Train, quantized: bool, tokens: int, labels: int) -> int:
    """Peak memory of one process in bytes, to a third or so.

    Args:
        model: its shapes, as `adapter.outline` gives them.
        train: how it is trained.
        quantized: whether the base model is held in 4 bits.
        tokens: of the largest batch.
        labels: positions with a label of the largest batch.
    """
    width = 2 if train.bf16 else 4
    linear = {id(m.weight) for m in frozen_linear(model)}
    frozen = sum(
        p.numel() * (FOUR_BITS if quantized and id(p) in linear else width) for p in model.parameters() if not p.requires_grad
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moments = OPTIMIZER_BYTES.get(train.optim, MOMENTS_8BIT if "8bit" in train.optim else MOMENTS)
    layers = frozen_linear(model)
    on_cpu = not torch.cuda.is_available()
    kept = tokens * sum(layer.out_features for layer in layers) * width * (KEPT_PER_OUTPUT_ON_CPU if on_cpu else KEPT_PER_OUTPUT)
    if train.gradient_checkpointing:
        blocks = model.config.num_hidden_layers
        least = kept / blocks + tokens * model.config.hidden_size * blocks * width
        kept = max(least, kept * CHECKPOINTED_ON_CPU) if on_cpu else least
    if quantized:
        kept += dequantized_bytes([layer.weight.numel() * width for layer in layers], on_cpu)
    logits = labels * model.config.vocab_size * 4 * LOGIT_COPIES
    return int(RUNTIME + frozen + trained * (4 + 4 + moments) + kept + logits)


def dequantized_bytes(sizes: list[int], on_cpu: bool) -> int:
    """Memory for the products with 4-bit weights, which bitsandbytes makes floats of each time anew.

    Args:
        sizes: of the weights as floats, in bytes.
        on_cpu: whether they come from C's heap, where small ones leave holes.
    """
    return 2 * (max(sizes, default=0) + sum(size for size in sizes if on_cpu and size < HEAP_BLOCK))


def frozen_linear(model: PeftModel) -> list[torch.nn.Linear]:
    """The base model's linear layers but the head."""
    head = model.get_base_model().get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad and m is not head]


def available_bytes() -> int:
    """Free memory of the device that trains, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return host_bytes()


def host_bytes() -> int:
    """Free memory of this machine, or what a container leaves of it, in bytes."""
    return min(int(psutil.virtual_memory().available), memory_left())


def peak_gpu_bytes() -> int:
    """Largest memory that torch has taken on this process's GPU, 0 without one."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0
