"""build: writes an ONNX model with quantized weights from the merged model, through onnxruntime-genai's builder.

With build.adapters=separate it builds the base model, which several fine-tuned models share, and writes the adapter beside it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from stages.build import built_model
from stages.build.block_size import DEFAULT_BLOCK_SIZE, check_model
from stages.build.builder import Builder, key_value_pairs
from stages.build.repairs import repair
from tunepress.config.build import (
    AUTO,
    CALIBRATION_TOKENS,
    FALLBACK,
    GPTQ,
    SAMPLES,
    SEPARATE_ON_ROUNDED_WEIGHTS,
    Adapters,
    Build,
)
from tunepress.config.evaluate import Evaluate
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.cgroups import release_memory
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, read_jsonl, size_mb, write_json
from tunepress.core.paths import ADAPTER, ADAPTER_FILE, BASE, CALIBRATION_ROWS, MERGED, METRICS, ONNX, TRAINING_ROWS
from tunepress.inference import genai_config
from tunepress.inference.calibration import fit_temperature
from tunepress.inference.guidance import answer_grammar
from tunepress.models.hf_model import check, load_encoder
from tunepress.text.chat_template import for_model_folder
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evenly_spaced

NO_ROWS = "there are no training rows"


@dataclass
class Config:
    build: Build
    merge: Merge
    evaluate: Evaluate


@dataclass(frozen=True)
class Recipe:
    """How a model was quantized.

    Attributes:
        algo_config: never auto.
        calibration: how many rows and tokens gptq was calibrated on, and how many there were before the cap; None without gptq.
    """

    algo_config: str | None
    calibration: dict[str, int] | None = None

    def metrics(self) -> dict[str, Any]:
        return {"algo_config": self.algo_config} | ({"calibration": self.calibration} if self.calibration else {})


def main(cfg: Config) -> str:
    """Builds models/onnx from models/merged, or from models/base and models/adapter."""
    separate = cfg.build.adapters is Adapters.separate
    source, prompt = (BASE, Prompt.load(ADAPTER)) if separate else (MERGED, Prompt.load(MERGED))
    with atomic_output(ONNX) as partial:
        if separate:
            recipe = build_separate(cfg.build, cfg.merge.base, partial, prompt)
        else:
            recipe = build(cfg.build, MERGED, partial, prompt)
        release_memory()  # the check loads the model that was built
        graph, shipped = complete(partial, source, prompt, cfg)
    write_json(METRICS / "build.json", built_model.metrics(cfg.build, ONNX, graph) | recipe.metrics())
    summary = f"{cfg.build.precision} model for {cfg.build.execution_provider} in {ONNX} ({size_mb(ONNX):.0f} MB)"
    if cfg.build.algo_config == AUTO and cfg.build.precision in ("int4", "int8"):
        summary += f", quantized by {recipe.algo_config or 'the default of the builder'}"
    calibration = recipe.calibration
    if calibration and calibration["tokens"] < calibration["tokens_chosen"]:
        summary += ", calibrated on {rows} of {rows_chosen} rows, {tokens} of their {tokens_chosen} tokens".format(**calibration)
    if shipped.temperature:
        summary += f", temperature {shipped.temperature:g}"
    return summary


def complete(folder: Path, source: Path, prompt: Prompt, cfg: Config) -> tuple[ModelProto, Prompt]:
    """Adds to a model what it is asked with, and checks that it answers; returns its graph and its prompt."""
    if prompt.chat_template:
        template = for_model_folder(prompt.chat_template, prompt.chat_template_kwargs, prompt.chat_template_date)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    prompt.save(folder)
    encoder = load_encoder(source, prompt.eos_token_ids)
    genai_config.write_eos_token_ids(folder, encoder.eos_token_ids)
    graph = built_model.check(cfg.build, source, folder)
    model = built_model.load_checked(folder)
    temperature = fit_temperature(model, prompt) if model and prompt.labels and cfg.evaluate.calibration else None
    guidance = answer_grammar(cfg.evaluate.guidance, prompt, source, encoder) if cfg.evaluate.guidance else None
    shipped = replace(prompt, temperature=temperature, abstain_below=cfg.evaluate.abstain_below, guidance=guidance)
    shipped.save(folder)
    if model and guidance:
        model.answer(built_model.example_prompt(folder, prompt), 1, guidance)
    return graph, shipped


def build(config: Build, model: Path, folder: Path, prompt: Prompt | None = None) -> Recipe:
    """Writes an onnxruntime-genai model folder.

    The weights are quantized layer by layer where that is possible.

    Args:
        config: the section build.
        model: folder of the source model.
        folder: the output.
        prompt: the prompt that the model was trained with, for gptq's samples; None: rows are not cut, and they end as the
            model's own files say.

    Raises:
        InputError: the recipe does not fit the model, or the builder rejects it.
    """
    check(model)
    check_model(config, model)
    from stages.build.quantize import layers  # imports torch and transformers' models: seconds
    from stages.build.quantize.offloaded_model import OffloadedModel, drop_neutral_zero_points
    from stages.build.quantize.recipe import WeightRecipe

    repair()
    source = OffloadedModel(model)
    builder = Builder(config.precision, config.execution_provider, key_value_pairs(config))
    options = builder.options(model)
    reason = layers.unsupported_reason(config.precision, options, config.block_size or DEFAULT_BLOCK_SIZE, source)
    if reason and config.algo_config == GPTQ:
        raise InputError(f"build.algo_config: gptq cannot quantize this model, because {reason}; use algo_config={AUTO}")
    if config.algo_config == AUTO:
        config = replace(config, algo_config=automatic(config, reason or (None if calibration_rows() else NO_ROWS), model))
        builder = Builder(config.precision, config.execution_provider, key_value_pairs(config))
        options = builder.options(model)
    if reason:
        builder.build(model, folder)
        return Recipe(config.algo_config)
    with builder.input_errors():
        recipe = WeightRecipe.of(config.precision, config.execution_provider, options, len(source.layers))
    calibration = None
    if config.algo_config == GPTQ:
        chosen = samples(config, model, prompt)
        rows = within(chosen, CALIBRATION_TOKENS)
        calibration = {
            "rows": len(rows),
            "rows_chosen": len(chosen),
            "tokens": total_tokens(rows),
            "tokens_chosen": total_tokens(chosen),
        }
        quantized = layers.quantize_with_gptq(source, recipe, rows)
    else:
        quantized = layers.round_to_nearest(source, recipe)
    for name, weights in zip(source.layers, quantized, strict=True):
        source.replace(name, weights)
    release_memory()  # of gptq, before the builder takes as much
    builder.build(model, folder, source.complete())
    drop_neutral_zero_points(folder)
    return Recipe(config.algo_config, calibration)


def automatic(config: Build, reason: str | None, model: Path) -> str | None:
    """The algo_config that auto stands for; `reason` is why gptq cannot quantize the model, None if it can."""
    if reason is None and config.adapters is Adapters.merged:
        return GPTQ
    if config.precision != "int4":
        return None
    try:
        check_model(replace(config, algo_config=FALLBACK), model)
    except InputError:  # the block size does not fit it
        return None
    return FALLBACK


def samples(config: Build, model: Path, prompt: Prompt | None) -> list[list[int]]:
    """The tokens of the rows that gptq is calibrated on, evenly spaced over all rows and cut as in training."""
    encoder, rows = load_encoder(model, prompt.eos_token_ids if prompt else ()), calibration_rows()
    if not rows:
        raise InputError(f"build.algo_config: gptq needs rows, and {NO_ROWS}; set data.calibration_files, or algo_config={AUTO}")
    chosen = evenly_spaced(rows, config.n_samples or SAMPLES)
    longest = prompt.source_max_len if prompt else None
    return [[token for tokens in segments for token in tokens][:longest] for segments in encoder.encode_segments(chosen)]


def calibration_rows() -> list[dict[str, Any]]:
    """The rows of data.calibration_files, or without them those of training."""
    return read_jsonl(CALIBRATION_ROWS if CALIBRATION_ROWS.exists() else TRAINING_ROWS)


def within(rows: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Evenly spaced rows with at most `max_tokens` tokens in total; a single row that has more is cut."""
    kept = evenly_spaced(rows, max_tokens)  # a row has a token or more
    while len(kept) > 1 and total_tokens(kept) > max_tokens:
        kept = evenly_spaced(rows, len(kept) - 1)
    return [row[:max_tokens] for row in kept]


def total_tokens(rows: list[list[int]]) -> int:
    return sum(map(len, rows))


def build_separate(config: Build, merge_base: MergeBase, folder: Path, prompt: Prompt | None = None) -> Recipe:
    """Writes the base model's folder, its graph with inputs for an adapter, and the adapter's file; returns what `build` does.

    Raises:
        InputError: the adapter cannot be separate, which is found before anything is built, or the builder rejects the recipe.
    """
    from stages.build.adapters import export, lora  # imports torch and peft: seconds
    from tunepress.models.bnb_4bit import Quantization

    adapter = lora.load(ADAPTER)
    if merge_base is MergeBase.dequantized and Quantization.load(ADAPTER):
        raise InputError(SEPARATE_ON_ROUNDED_WEIGHTS)
    recipe = build(config, BASE, folder, prompt)
    export.add_adapter_inputs(adapter, folder / "model.onnx", folder / ADAPTER_FILE)
    return recipe
