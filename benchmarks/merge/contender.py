"""The tasks of benchmarks.merge, each called in a process of its own, in a folder laid out like the project."""

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.models import SHARD
from tunepress.core.paths import ADAPTER, BASE, MERGED

COPIED, BY_PEFT = Path("copied"), Path("models/by_peft")


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
    """As peft's documentation merges."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    start = time.perf_counter()
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), ADAPTER).merge_and_unload()
    merged.save_pretrained(BY_PEFT, max_shard_size=SHARD)
    return {"work_seconds": time.perf_counter() - start}


def compare() -> dict[str, Any]:
    """How the values of both results differ."""
    import torch

    from tunepress.models.shards import Shards

    torch.set_num_threads(1)  # of parts this small
    ours, theirs = Shards.of(MERGED).tensors, Shards.of(BY_PEFT).tensors
    assert ours.keys() == theirs.keys()
    assert next(iter(ours.values())).dtype is torch.bfloat16
    values, equal, close, largest, largest_value = 0, 0, 0, 0.0, 0.0
    for name, stored in ours.items():
        for block in stored.blocks():
            our, their = stored.read(*block), theirs[name].read(*block)
            values += our.numel()
            largest_value = max(largest_value, float(our.abs().max()))
            if torch.equal(our, their):
                equal += our.numel()
                close += our.numel()
                continue
            steps = (ordered(our) - ordered(their)).abs_()
            equal += int((steps == 0).sum())
            close += int((steps <= 1).sum())
            largest = max(largest, float((our.float() - their.float()).abs().max()))
    shares = {"equal": equal / values, "within_a_step": close / values}
    return {"values": values, **shares, "largest": largest, "largest_value": largest_value}


def ordered(values: Any) -> Any:
    """Whole numbers that count the steps of bfloat16: the next larger value has the next larger number."""
    import torch

    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -32768 - bits, bits)
