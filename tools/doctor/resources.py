"""Disk space and memory, compared with what the recipe needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools.doctor.dvc_project import cache_folder
from tools.doctor.finding import Finding, error, ok, warning
from tools.doctor.recipe import Recipe, outline_of
from tunepress.config.base_model import Source
from tunepress.core.cgroups import free_memory
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
CHECKPOINT_BYTES = 4 * 6  # per trained parameter: its value and two moments in float32, in two checkpoints
# Peak of the stage build per parameter, with Phi-3-mini's shape (benchmarks/results/build.json): rounded tensor by tensor, and by
# the builder, which has all weights in float32.
TENSORWISE_BYTES, BUILDER_BYTES = 1.9, 5.9
MARGIN = 1.2  # the estimate is accurate to about a tenth


def findings(recipe: Recipe) -> Iterator[Finding]:
    """Disk, and the memory to train, to build and to evaluate."""
    try:
        model = outline_of(recipe)
    except InputError as problem:
        yield error("base model", str(problem), "the stages would raise the same error")
        return
    if model is None:
        advice = "about 2 bytes of disk per parameter for the base model, 2 for the merged one and 1 for int4"
        yield warning("disk, memory", "not known before the base model is fetched", advice)
        return
    yield from disk(disk_usage(recipe, model))
    if recipe.trains:
        yield training_memory(recipe, model)
    yield host_memory(recipe, model)


def disk_usage(recipe: Recipe, model: "PeftModel") -> dict[Path, float]:
    """The bytes that the recipe writes to each folder; existing outputs are not counted."""
    trained, _ = model.get_nb_trainable_parameters()
    base, onnx = base_bytes(recipe, model), base_parameters(model) * ONNX_BYTES[recipe.params.build.precision]
    sizes = {BASE: base, MERGED: base, ONNX: onnx}
    outputs = sum(size for folder, size in sizes.items() if not (recipe.base_fetched and folder.exists()))
    usage = {Path.cwd(): outputs + trained * CHECKPOINT_BYTES}
    if device(cache_folder()) != device(Path.cwd()):  # otherwise the files are links
        usage[cache_folder()] = outputs
    if recipe.params.base_model.source is Source.huggingface and not recipe.base_fetched:
        from huggingface_hub.constants import HF_HUB_CACHE

        usage[Path(HF_HUB_CACHE)] = base
    return usage


def base_bytes(recipe: Recipe, model: "PeftModel") -> float:
    if recipe.base_fetched:
        return size_mb(BASE) * 1e6
    return base_parameters(model) * (2 if is_in_sixteen_bits(recipe, model) else 4)


def is_in_sixteen_bits(recipe: Recipe, model: "PeftModel") -> bool:
    from tunepress.models.layerwise_casting import in_sixteen_bits

    return in_sixteen_bits(BASE) if recipe.base_fetched else "16" in str(model.config.dtype)


def base_parameters(model: "PeftModel") -> int:
    trained, parameters = model.get_nb_trainable_parameters()
    return int(parameters - trained)


def disk(usage: dict[Path, float]) -> Iterator[Finding]:
    """The free space, with one finding per file system."""
    by_device: dict[int, list[Path]] = {}
    for folder in usage:
        by_device.setdefault(device(folder), []).append(folder)
    for folders in by_device.values():
        needed, free = sum(usage[folder] for folder in folders), shutil.disk_usage(existing(folders[0])).free
        detail = f"{' and '.join(map(folder_name, folders))}: {free / GB:.1f} GB free, {needed / GB:.1f} GB needed"
        advice = "free space (`dvc gc --workspace` removes what no stage uses), or move DVC's cache or HF_HOME to another disk"
        if free < needed:
            yield error("disk", detail, advice)
        else:
            yield warning("disk", detail, advice) if free < MARGIN * needed else ok("disk", detail)


def folder_name(folder: Path) -> str:
    return "this folder" if folder == Path.cwd() else str(folder)


def device(folder: Path) -> int:
    """The file system of a folder, which need not exist."""
    return existing(folder).stat().st_dev


def existing(folder: Path) -> Path:
    """The nearest existing parent of a folder, or the folder itself."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def training_memory(recipe: Recipe, model: "PeftModel") -> Finding:
    """The minimum of training, with rows of one token, and the maximum, with rows as long as the recipe allows."""
    import torch

    from stages.train.estimate import available_bytes, can_cast, estimated_bytes

    train, adapter, available = recipe.params.train, recipe.params.adapter, available_bytes()
    sharing = 1 if torch.cuda.is_available() else train.num_processes
    batch = train.per_device_train_batch_size

    def needed(casts: bool) -> list[int]:
        lengths = (batch, batch * recipe.params.data.source_max_len)
        quantized = adapter.method.quantized
        return [sharing * estimated_bytes(model, train, quantized, length, length, casts=casts) for length in lengths]

    least, most = needed(casts=False)
    if most > available and can_cast(adapter, train) and is_in_sixteen_bits(recipe, model):
        least, most = needed(casts=True)
    detail = f"{available / GB:.1f} GB free, {least / GB:.1f} to {most / GB:.1f} GB needed, depending on the length of the rows"
    cure = "adapter=qlora, train.gradient_checkpointing=true, a smaller batch or source_max_len; train reports what the rows need"
    if least > available and train.check_memory:
        return error("memory to train", detail, f"{cure} (train.check_memory=false trains anyway)")
    return warning("memory to train", detail, cure) if most > available else ok("memory to train", detail)


def host_memory(recipe: Recipe, model: "PeftModel") -> Finding:
    """The memory of build, and of evaluate, which loads the merged model."""
    from stages.train.estimate import RUNTIME

    chosen = recipe.params.build
    tensorwise = chosen.precision in ("int4", "int8") and not chosen.extra_options.get("use_qdq")
    build = base_parameters(model) * (TENSORWISE_BYTES if tensorwise else BUILDER_BYTES)
    needed = RUNTIME + max(build, base_bytes(recipe, model))
    available = free_memory()
    detail = f"{available / GB:.1f} GB free, {needed / GB:.1f} GB needed"
    subject = "memory to build"
    return ok(subject, detail) if needed < available else warning(subject, detail, "close other programs, or add swap or memory")
