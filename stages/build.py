"""build: makes an ONNX model with quantized weights from the merged model, with onnxruntime-genai's builder.

With build.adapters=separate it makes one from the base model, which all its fine-tunings share, and a file of the adapter.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.lib.checkpoint import check
from stages.lib.edge.configuration import one_line
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import replacing, size_mb, write_json
from stages.lib.edge.paths import ADAPTER, ADAPTER_FILE, BASE, MERGED, METRICS, ONNX
from stages.lib.edge.stage import run
from stages.lib.prompt import Prompt
from stages.lib.schema.build import Adapters, Build, on_rounded_weights
from stages.lib.schema.merge import Merge, MergeBase


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    build: Build
    merge: Merge


def main(cfg: Sections) -> str:
    """Builds models/onnx from models/merged, or from models/base and models/adapter."""
    separate = cfg.build.adapters is Adapters.separate
    with replacing(ONNX) as partial:
        if separate:
            build_separate(cfg.build, cfg.merge.base, partial)
        else:
            build(cfg.build, MERGED, partial)
        if cfg.build.execution_provider == "cpu":  # the one that every machine has
            check_loads(partial)
        Prompt.load(ADAPTER if separate else MERGED).save(partial)
    written = {"precision": cfg.build.precision, "execution_provider": cfg.build.execution_provider}
    sizes = {"size_mb": size_mb(ONNX), **({"adapter_mb": size_mb(ONNX / ADAPTER_FILE)} if separate else {})}
    write_json(METRICS / "build.json", {**written, **sizes})
    return f"{cfg.build.precision} model for {cfg.build.execution_provider} in {ONNX} ({size_mb(ONNX):.0f} MB)"


def build(recipe: Build, merged: Path, folder: Path) -> None:
    """Writes an onnxruntime-genai model folder.

    Raises:
        InputError: the builder refuses the recipe.
    """
    from onnxruntime_genai.models.builder import create_model, parse_extra_options  # imports torch: five seconds

    check(merged)
    optional = {
        "algo_config": recipe.algo_config,
        "block_size": recipe.block_size,
        "accuracy_level": recipe.accuracy_level,
        "is_symmetric": recipe.is_symmetric,
        "matmul_mixed_precision": recipe.matmul_mixed_precision,
        "nodes_to_exclude": ",".join(recipe.nodes_to_exclude) or None,
    }
    extra_options = [f"{name}={value}" for name, value in optional.items() if value is not None]
    logging.getLogger("onnxruntime").setLevel(logging.WARNING)  # two lines for each node otherwise
    said = io.StringIO()
    # The builder deletes its cache folder when it is empty, so it gets one of its own.
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(said), hidden_git():
        arguments = ("", str(merged), str(folder), recipe.precision, recipe.execution_provider, f"{scratch}/cache")
        try:
            create_model(*arguments, **parse_extra_options(*arguments, extra_options=extra_options))
        except (ValueError, NotImplementedError, KeyError, RuntimeError) as error:
            target = f"{recipe.precision} for {recipe.execution_provider}"
            raise InputError(f"build: the builder refuses {target} ({one_line(error)})") from error


def build_separate(recipe: Build, merge_base: MergeBase, folder: Path) -> None:
    """Writes the base model's folder with branches for the adapter, and the adapter's file into it.

    Raises:
        InputError: the adapter cannot be kept apart, which shows before anything is built, or the builder refuses the recipe.
    """
    from stages.lib import lora, onnx_adapter  # torch and peft: seconds
    from stages.lib.quantization import Quantization

    adapter = lora.load(ADAPTER)
    if merge_base is MergeBase.dequantized and Quantization.load(ADAPTER):
        raise InputError(on_rounded_weights())
    build(recipe, BASE, folder)
    onnx_adapter.keep_apart(adapter, folder / "model.onnx", folder / ADAPTER_FILE)


@contextlib.contextmanager
def hidden_git() -> Iterator[None]:
    """Keeps git from the builder, which else writes into the model the commit of whatever repo the environment lies in.

    With .venv in this project that is the project's own HEAD, and every commit would give other bytes
    (onnxruntime_genai 0.18, models/builders/base.py, get_genai_commit). Without git it takes its own package's commit.
    """
    earlier = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        del os.environ["GIT_DIR"]
        if earlier is not None:
            os.environ["GIT_DIR"] = earlier


def check_loads(folder: Path) -> None:
    """Raises InputError if onnxruntime cannot load the model: the builder writes some combinations that it cannot."""
    import onnxruntime_genai as og

    try:
        og.Model(str(folder))
    except RuntimeError as error:
        raise InputError(f"build: these options give a model that does not load ({one_line(error)})") from error


if __name__ == "__main__":
    run("build", main, Sections, sys.argv[1:])
