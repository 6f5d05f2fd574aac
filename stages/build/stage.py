"""build: makes an ONNX model with quantized weights from the merged model, with onnxruntime-genai's builder.

With build.adapters=separate it makes one from the base model, which the fine-tunings of a base share, and an adapter's file.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.build import built_model
from stages.build.builder import Builder
from tunepress.config import builder_options
from tunepress.config.build import CALIBRATION_TOKENS, GPTQ, SAMPLES, Adapters, Build, on_rounded_weights
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, read_jsonl, size_mb, write_json
from tunepress.core.paths import ADAPTER, ADAPTER_FILE, BASE, MERGED, METRICS, ONNX, PREPARED
from tunepress.inference import genai_config
from tunepress.models.hf_model import check, load_encoder
from tunepress.text.prompt import Prompt


@dataclass
class Config:
    """What this stage reads of params.yaml."""

    build: Build
    merge: Merge


def main(cfg: Config) -> str:
    """Builds models/onnx from models/merged, or from models/base and models/adapter."""
    wrong = builder_options.refusal(cfg.build)
    if wrong:
        raise InputError(wrong)
    separate = cfg.build.adapters is Adapters.separate
    source, prompt = (BASE, Prompt.load(ADAPTER)) if separate else (MERGED, Prompt.load(MERGED))
    with atomic_output(ONNX) as partial:
        if separate:
            calibration = build_separate(cfg.build, cfg.merge.base, partial, prompt)
        else:
            calibration = build(cfg.build, MERGED, partial, prompt)
        prompt.save(partial)
        genai_config.write_eos_token_ids(partial, load_encoder(source, prompt.eos_token_ids).eos_token_ids)
        model = built_model.check(cfg.build, source, partial)
    figures = built_model.figures(cfg.build, ONNX, model) | ({"calibration": calibration} if calibration else {})
    write_json(METRICS / "build.json", figures)
    made = f"{cfg.build.precision} model for {cfg.build.execution_provider} in {ONNX} ({size_mb(ONNX):.0f} MB)"
    if calibration and calibration["tokens"] < calibration["tokens_chosen"]:
        made += ", calibrated on {rows} of {rows_chosen} rows, {tokens} of their {tokens_chosen} tokens".format(**calibration)
    return made


def build(recipe: Build, model: Path, folder: Path, prompt: Prompt | None = None) -> dict[str, int] | None:
    """Writes an onnxruntime-genai model folder.

    The weights are rounded tensor by tensor where they can be, and the builder gets them in a checkpoint within `folder`,
    which goes with it if this fails or is killed.

    Args:
        recipe: of the build.
        model: folder of the model that is built.
        folder: to write to.
        prompt: that the model was trained with, for gptq's samples; None: they are not cut, and end as the model's files say.

    Returns:
        how many rows and tokens gptq looked at, and how many there were without the cap; None without gptq.

    Raises:
        InputError: the recipe does not fit the model, or the builder refuses it.
    """
    check(model)
    builder_options.check_model(recipe, model)
    from stages.build.quantize import checkpoint as quantized_checkpoint  # torch and transformers' models: seconds
    from stages.build.quantize import tensors as tensorwise
    from stages.build.quantize.recipe import Rounding

    source = quantized_checkpoint.Source(model)
    builder = Builder(recipe.precision, recipe.execution_provider, builder_options.key_value_pairs(recipe))
    options = builder.options(model)
    with builder.refusals():
        rounding = Rounding.of(recipe.precision, recipe.execution_provider, options, source.config.num_hidden_layers)
    obstacle = tensorwise.obstacle(recipe.precision, options, rounding.block_size, source)
    if obstacle and recipe.algo_config == GPTQ:
        raise InputError(f"build.algo_config: gptq cannot round this model, for {obstacle}; use algo_config=k_quant_mixed")
    if obstacle:
        builder.build(model, folder)
        return None
    calibration = None
    if recipe.algo_config == GPTQ:
        chosen = samples(recipe, model, prompt)
        rows = within(chosen, CALIBRATION_TOKENS)
        calibration = {
            "rows": len(rows),
            "rows_chosen": len(chosen),
            "tokens": tokens_in(rows),
            "tokens_chosen": tokens_in(chosen),
        }
        layers = tensorwise.calibrated(source, rounding, rows)
    else:
        layers = tensorwise.nearest(source, rounding)
    quantized_checkpoint.write_checkpoint(source, layers, rounding.block_size, rounding.bits, folder / "checkpoint")
    builder.build(folder / "checkpoint", folder)
    shutil.rmtree(folder / "checkpoint")
    quantized_checkpoint.drop_neutral_zero_points(folder)
    return calibration


def samples(recipe: Build, model: Path, prompt: Prompt | None) -> list[list[int]]:
    """The tokens of the training rows that gptq looks at, evenly from all of them, as they were learned."""
    encoder, rows = load_encoder(model, prompt.eos_token_ids if prompt else ()), read_jsonl(PREPARED / "train.jsonl")
    chosen = evenly(rows, min(recipe.n_samples or SAMPLES, len(rows)))
    rows_cut = [encoder.row(row, prompt.source_max_len if prompt else None) for row in chosen]
    return [prompt_tokens + completion for prompt_tokens, completion in rows_cut]


def evenly(rows: list[Any], number: int) -> list[Any]:
    """That number of the rows, evenly from all of them."""
    return [rows[place * len(rows) // number] for place in range(number)]


def within(rows: list[list[int]], most: int) -> list[list[int]]:
    """Those of the rows, evenly from all of them, that have at most `most` tokens together; a row that alone has more is cut."""
    kept = rows if len(rows) <= most else evenly(rows, most)  # a row has a token or more
    while len(kept) > 1 and tokens_in(kept) > most:
        kept = evenly(rows, len(kept) - 1)
    return [row[:most] for row in kept]


def tokens_in(rows: list[list[int]]) -> int:
    """The tokens of all rows."""
    return sum(map(len, rows))


def build_separate(recipe: Build, merge_base: MergeBase, folder: Path, prompt: Prompt | None = None) -> dict[str, int] | None:
    """Writes the base model's folder with branches for the adapter, and the adapter's file into it; returns what `build` does.

    Raises:
        InputError: the adapter cannot be kept apart, which shows before anything is built, or the builder refuses the recipe.
    """
    from stages.build.adapters import export as onnx_adapter
    from stages.build.adapters import lora  # torch and peft: seconds
    from tunepress.models.bnb_4bit import Quantization

    adapter = lora.load(ADAPTER)
    if merge_base is MergeBase.dequantized and Quantization.load(ADAPTER):
        raise InputError(on_rounded_weights())
    calibration = build(recipe, BASE, folder, prompt)
    onnx_adapter.keep_apart(adapter, folder / "model.onnx", folder / ADAPTER_FILE)
    return calibration
