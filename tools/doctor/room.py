"""Disk and memory against what the recipe needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools.doctor.dvc_project import cache_folder
from tools.doctor.finding import Finding, error, ok, warning
from tools.doctor.recipe import Recipe
from tools.doctor.shape import outlined
from tunepress.config.base_model import Source
from tunepress.config.build import GPTQ
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb
from tunepress.core.paths import BASE, MERGED, ONNX

if TYPE_CHECKING:
    from peft import PeftModel

GB = 1e9
ONNX_BYTES = {
    "int4": 0.7,
    "int8": 1.2,
    "fp16": 2,
    "bf16": 2,
    "fp32": 4,
}  # per parameter; int4 and int8 with scales and embeddings
CHECKPOINT_BYTES = 4 * 6  # per trained parameter: of two checkpoints its value and two moments, in float32
# Peak of the stage build per parameter, with Phi-3-mini's shape (benchmarks/results/build.json): rounded tensor by tensor, and by
# the builder, which holds all weights in float32.
TENSORWISE_BYTES, BUILDER_BYTES = 1.9, 5.9
SPARE = 1.2  # the estimate is one to a tenth or so


def look(recipe: Recipe) -> Iterator[Finding]:
    """Disk, and the memory to train, to build and to evaluate."""
    try:
        model = outlined(recipe)
    except InputError as wrong:
        yield error("base model", str(wrong), "the stages would say the same")
        return
    if model is None:
        advice = "about 2 bytes of disk a parameter for the base model, 2 for the merged one and 1 for int4"
        yield warning("disk, memory", "what they must hold is not known before the base model is fetched", advice)
        return
    yield from rounding(recipe, model)
    yield from disk(needs(recipe, model))
    if recipe.trains:
        yield training_memory(recipe, model)
    yield host_memory(recipe, model)


def rounding(recipe: Recipe, model: "PeftModel") -> Iterator[Finding]:
    """An error where build would refuse gptq for the model, after it has been trained."""
    from stages.build.quantize.checkpoint import ARCHITECTURES  # torch and onnx: seconds

    name = type(model.get_base_model()).__name__
    if recipe.params.build.algo_config == GPTQ and name not in ARCHITECTURES:
        yield error("build", f"gptq cannot round {name}", "build.algo_config=k_quant_mixed")


def needs(recipe: Recipe, model: "PeftModel") -> dict[Path, float]:
    """Bytes that the recipe writes, by the folder where it does; outputs that are there already count as nothing."""
    trained, _ = model.get_nb_trainable_parameters()
    base, onnx = base_bytes(recipe, model), frozen(model) * ONNX_BYTES[recipe.params.build.precision]
    wanted = {BASE: base, MERGED: base, ONNX: onnx}
    outputs = sum(size for folder, size in wanted.items() if not (recipe.base_at_hand and folder.exists()))
    found = {Path.cwd(): outputs + trained * CHECKPOINT_BYTES}
    if device(cache_folder()) != device(Path.cwd()):  # else the files are linked
        found[cache_folder()] = outputs
    if recipe.params.base_model.source is Source.huggingface and not recipe.base_at_hand:
        from huggingface_hub.constants import HF_HUB_CACHE

        found[Path(HF_HUB_CACHE)] = base
    return found


def base_bytes(recipe: Recipe, model: "PeftModel") -> float:
    """Size of the base model's files."""
    if recipe.base_at_hand:
        return size_mb(BASE) * 1e6
    return frozen(model) * (2 if "16" in str(model.config.dtype) else 4)


def frozen(model: "PeftModel") -> int:
    """Parameters of the base model."""
    trained, parameters = model.get_nb_trainable_parameters()
    return int(parameters - trained)


def disk(wanted: dict[Path, float]) -> Iterator[Finding]:
    """Free space, one line for each filesystem."""
    by_device: dict[int, list[Path]] = {}
    for folder in wanted:
        by_device.setdefault(device(folder), []).append(folder)
    for folders in by_device.values():
        needed, free = sum(wanted[folder] for folder in folders), shutil.disk_usage(existing(folders[0])).free
        found = f"{' and '.join(map(named, folders))}: {free / GB:.1f} GB free, {needed / GB:.1f} GB needed"
        advice = "make room (`dvc gc --workspace` drops what no stage uses), or move DVC's cache or HF_HOME to another disk"
        if free < needed:
            yield error("disk", found, advice)
        else:
            yield warning("disk", found, advice) if free < SPARE * needed else ok("disk", found)


def named(folder: Path) -> str:
    """A folder in a few words."""
    return "this folder" if folder == Path.cwd() else str(folder)


def device(folder: Path) -> int:
    """The filesystem that a folder is on, or will be."""
    return existing(folder).stat().st_dev


def existing(folder: Path) -> Path:
    """The nearest folder that there is."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def training_memory(recipe: Recipe, model: "PeftModel") -> Finding:
    """What training takes at least, with rows of one token, and at most, with rows as long as the recipe allows."""
    import torch

    from stages.train.estimate import available_bytes, estimated_bytes

    train, quantized = recipe.params.train, recipe.params.adapter.method.quantized
    sharing = 1 if torch.cuda.is_available() else train.num_processes
    batch = train.per_device_train_batch_size
    least, most = (
        sharing * estimated_bytes(model, train, quantized, batch * length, batch * length)
        for length in (1, recipe.params.data.source_max_len)
    )
    there = available_bytes()
    found = f"{there / GB:.1f} GB free, {least / GB:.1f} to {most / GB:.1f} GB needed, by the rows' length"
    cure = "adapter=qlora, train.gradient_checkpointing=true, a smaller batch or source_max_len; train says what the rows need"
    if least > there and train.check_memory:
        return error("memory to train", found, f"{cure} (train.check_memory=false trains all the same)")
    return warning("memory to train", found, cure) if most > there else ok("memory to train", found)


def host_memory(recipe: Recipe, model: "PeftModel") -> Finding:
    """What build takes, and evaluate, which holds the merged model's weights."""
    from stages.build.quantize.checkpoint import ARCHITECTURES
    from stages.train.estimate import RUNTIME, host_bytes

    tensorwise = recipe.params.build.precision in ("int4", "int8") and type(model.get_base_model()).__name__ in ARCHITECTURES
    build = frozen(model) * (TENSORWISE_BYTES if tensorwise else BUILDER_BYTES)
    needed = RUNTIME + max(build, base_bytes(recipe, model))
    there = host_bytes()
    found = f"{there / GB:.1f} GB free, {needed / GB:.1f} GB needed"
    subject = "memory to build"
    return ok(subject, found) if needed < there else warning(subject, found, "close other programs, or add swap, or memory")
