"""One task of benchmarks/merge.py, in a process and a folder of its own, which is the working folder.

python -m benchmarks.merge_contender REPORT TASK [SHAPE]
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunepress.core.files import write_json
from tunepress.core.paths import ADAPTER, BASE, MERGED

COPIED, BY_PEFT = Path("copied"), Path("models/by_peft")
SHARD = 5_000_000_000  # bytes, as transformers wrote Phi-3-mini's files
SEED, SPREAD = 0, 0.02  # of the random weights


def models(shape: str) -> dict[str, Any]:
    """Makes models/base and models/adapter of a shape of benchmarks/train_gpu_shapes.py."""
    import torch
    from accelerate import init_empty_weights
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM, Phi3Config

    from benchmarks.train_gpu_shapes import SHAPES
    from tunepress.models.random_model import byte_tokenizer
    from tunepress.text.prompt import Prompt

    torch.manual_seed(SEED)
    chosen = SHAPES[shape]
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(Phi3Config(**chosen.config, dtype="bfloat16", pad_token_id=0))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    parameters = model.num_parameters()
    BASE.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(BASE)
    model.generation_config.save_pretrained(BASE)
    byte_tokenizer().save_pretrained(BASE)
    files = write_weights(shapes, BASE)
    config = LoraConfig(task_type="CAUSAL_LM", r=chosen.rank, lora_alpha=chosen.rank, target_modules="all-linear")
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    factors = {
        name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
    }
    config.save_pretrained(ADAPTER)
    write_random(factors, torch.float32, ADAPTER / "adapter_model.safetensors")
    Prompt("{text}", "{answer}", None, source_max_len=1).save(ADAPTER)
    return {"parameters": parameters, "files": files, "r": chosen.rank}


def write_weights(shapes: dict[str, tuple[int, ...]], folder: Path) -> int:
    """Writes random bfloat16 weights in files of up to SHARD bytes with an index; returns how many files."""
    import math

    import torch

    groups: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        if size and size + 2 * math.prod(shape) > SHARD:
            groups.append({})
            size = 0
        groups[-1][name] = shape
        size += 2 * math.prod(shape)
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        write_random(group, torch.bfloat16, folder / name)
    weight_map = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    return len(groups)


def write_random(shapes: dict[str, tuple[int, ...]], dtype: Any, file: Path) -> None:
    """Writes tensors with normally distributed values."""
    import torch
    from safetensors.torch import save_file

    save_file({name: (torch.randn(shape) * SPREAD).to(dtype) for name, shape in shapes.items()}, file, {"format": "pt"})


def imports() -> dict[str, Any]:
    """Nothing, with torch imported."""
    import torch

    return {"torch": torch.__version__}


def copy() -> dict[str, Any]:
    """Copies the base model's files."""
    start = time.perf_counter()
    COPIED.mkdir()
    for file in BASE.iterdir():
        shutil.copyfile(file, COPIED / file.name)
    return {"work_seconds": time.perf_counter() - start}


def tunepress() -> dict[str, Any]:
    """The stage."""
    from stages.merge import stage as merge
    from tunepress.config.merge import Merge, MergeBase

    start = time.perf_counter()
    merge.main(merge.Config(Merge(MergeBase.original)))
    return {"work_seconds": time.perf_counter() - start}


def peft() -> dict[str, Any]:
    """As its users merge."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    start = time.perf_counter()
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), ADAPTER).merge_and_unload()
    merged.save_pretrained(BY_PEFT, max_shard_size=SHARD)
    return {"work_seconds": time.perf_counter() - start}


def compare() -> dict[str, Any]:
    """The values of both results."""
    import torch

    from tunepress.models.shards import Shards

    torch.set_num_threads(1)  # of parts this small
    ours, theirs = Shards.of(MERGED).tensors, Shards.of(BY_PEFT).tensors
    assert ours.keys() == theirs.keys()
    values, equal, close, largest, largest_value = 0, 0, 0, 0.0, 0.0
    for name, stored in ours.items():
        for block in stored.blocks():
            one, other = stored.read(*block), theirs[name].read(*block)
            values += one.numel()
            largest_value = max(largest_value, float(one.abs().max()))
            if torch.equal(one, other):
                equal += one.numel()
                close += one.numel()
                continue
            steps = (ordered(one) - ordered(other)).abs_()
            equal += int((steps == 0).sum())
            close += int((steps <= 1).sum())
            largest = max(largest, float((one.float() - other.float()).abs().max()))
    assert torch.bfloat16 is next(iter(ours.values())).dtype
    shares = {"equal": equal / values, "within_a_step": close / values}
    return {"values": values, **shares, "largest": largest, "largest_value": largest_value}


def ordered(values: Any) -> Any:
    """Whole numbers that count the steps of bfloat16: the next larger value has the next larger number."""
    import torch

    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -32768 - bits, bits)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "models": models,
    "imports": imports,
    "copy": copy,
    "tunepress": tunepress,
    "peft": peft,
    "compare": compare,
}


if __name__ == "__main__":
    report, task, *arguments = sys.argv[1:]
    Path(report).write_text(json.dumps(TASKS[task](*arguments)), encoding="utf-8")
