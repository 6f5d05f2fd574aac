"""build, for every target: each recipe builds here, is checked as far as this machine can, and again gives the same bytes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from omegaconf import OmegaConf

from stages import compare
from stages.benchmark import stage as benchmark
from stages.build import built_model, onnx_graph
from stages.build import stage as build
from stages.evaluate import stage as evaluate
from tests.command import run_module
from tests.stages.built import PROMPT, built
from tests.stages.outputs import hashes
from tests.stages.recipes import MERGE, evaluation, recipe
from tunepress.config.benchmark import Benchmark
from tunepress.config.build import Build
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, read_jsonl, write_csv, write_json, write_jsonl
from tunepress.core.params import PARAMS
from tunepress.core.paths import MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.scoring import Logits
from tunepress.models.random_model import write_random_model
from tunepress.text.segments import context, learned

RECIPES = sorted(path.stem for path in (Path(__file__).resolve().parents[3] / "conf/build").glob("*.yaml"))
LLAMA = {
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def random_llama(folder: Path, **changed: Any) -> Path:
    folder.mkdir()
    write_random_model(LLAMA | changed, 0, folder)
    return folder


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose head is its embedding."""
    return random_llama(
        tmp_path_factory.mktemp("tied") / "merged",
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )


def of_conf(name: str, root: Path) -> Build:
    chosen = OmegaConf.merge(OmegaConf.structured(Build), OmegaConf.load(root / f"conf/build/{name}.yaml"))
    made = OmegaConf.to_object(chosen)
    assert isinstance(made, Build)
    return made


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training rows in the working folder, which gptq looks at."""
    monkeypatch.chdir(tmp_path)
    PREPARED.mkdir(parents=True)
    write_jsonl(
        PREPARED / "train.jsonl", [{"segments": [context(f"Text: day {n}\nTone: "), learned("joy", "joy")]} for n in range(40)]
    )


# every recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_passes_every_check_of_a_machine_without_its_hardware(
    name: str, tiny_phi3: Path, tmp_path: Path, root: Path
) -> None:
    chosen = of_conf(name, root)
    folder = built(chosen, tiny_phi3, tmp_path / "onnx")
    model = built_model.check(chosen, tiny_phi3, folder)
    metrics = built_model.metrics(chosen, folder, model)
    assert GenaiConfig.read(folder).provider == chosen.execution_provider
    assert bool(built_model.load_checked(folder)) == (chosen.execution_provider == "cpu")
    if chosen.precision in ("int4", "int8"):
        least = int(chosen.precision.removeprefix("int"))
        assert least < metrics["effective_bits_per_weight"] < 10
        assert metrics["block_size"] == 32
    else:
        assert metrics["effective_bits_per_weight"] is None
        assert metrics["mb_by_kind"] == {"quantized": 0, "scales": 0, "zero_points": 0, "plain": metrics["mb_by_kind"]["plain"]}


@pytest.mark.parametrize("name", ["cpu_int4", "cpu_int4_k_quant_mixed", "cpu_int8", "dml_int4", "webgpu_int8"])
def test_a_model_whose_head_is_its_embedding_builds_too(name: str, tied: Path, tmp_path: Path, root: Path) -> None:
    chosen = of_conf(name, root)
    folder = built(chosen, tied, tmp_path / "onnx")
    metrics = built_model.metrics(chosen, folder, built_model.check(chosen, tied, folder))
    assert metrics["size_mb"] < 0.3


@pytest.mark.parametrize("name", ["cuda_int4", "dml_int4", "webgpu_int4", "cpu_int8"])
def test_gptq_rounds_for_other_targets_too(name: str, tiny_phi3: Path, tmp_path: Path, root: Path) -> None:
    nearest = replace(of_conf(name, root), algo_config=None)
    chosen = replace(nearest, algo_config="gptq")
    folder = built(chosen, tiny_phi3, tmp_path / "onnx")
    built_model.check(chosen, tiny_phi3, folder)
    assert hashes(folder)["model.onnx.data"] != hashes(built(nearest, tiny_phi3, tmp_path / "nearest"))["model.onnx.data"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_builds_of_a_recipe_give_the_same_bytes(name: str, tiny_phi3: Path, tmp_path: Path, root: Path) -> None:
    chosen = of_conf(name, root)
    first, second = (hashes(built(chosen, tiny_phi3, tmp_path / again)) for again in ("first", "second"))
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        {"fuse_qkv": False},
        {"include_hidden_states": True},
        {"op_types_to_quantize": "MatMul/Gather"},
        {"prune_lm_head": True},
        {"use_qdq": True},
    ],
    ids=str,
)
def test_extra_options_reach_the_builder_and_change_the_graph(options: dict[str, Any], tiny_phi3: Path, tmp_path: Path) -> None:
    chosen = recipe(extra_options=options)
    plain, other = built(recipe(), tiny_phi3, tmp_path / "plain"), built(chosen, tiny_phi3, tmp_path / "other")
    built_model.check(chosen, tiny_phi3, other)
    assert built_model.load_checked(other)
    assert (plain / "model.onnx").read_bytes() != (other / "model.onnx").read_bytes()


def test_a_quantized_cache_takes_its_scales_from_a_file(tiny_phi3: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "scales.json", {"scales": {"k_scales": [0.01, 0.01], "v_scales": [0.01, 0.01]}})
    options = {"kv_cache_quant_scheme": "int8_per_tensor", "kv_cache_scale_file": str(tmp_path / "scales.json")}
    chosen = recipe(extra_options=options)
    model = built_model.check(chosen, tiny_phi3, built(chosen, tiny_phi3, tmp_path / "onnx"))
    cache = next(value for value in model.graph.input if value.name == "past_key_values.0.key")
    assert cache.type.tensor_type.elem_type == onnx.TensorProto.INT8


# what the builder cannot do


def test_fp32_for_cuda_is_still_a_graph_that_no_runtime_reads(tied: Path, tmp_path: Path) -> None:
    """Else builder_options.BROKEN has one too many."""
    folder = built(recipe("fp32", "cuda"), tied, tmp_path / "onnx")
    with pytest.raises(InputError, match=r"these options give an invalid graph \(.*present\.0\.key"):
        onnx_graph.check(GenaiConfig.read(folder))


@pytest.mark.parametrize("algo_config", ["k_quant", "k_quant_mixed"])
def test_an_odd_number_of_blocks_is_refused_before_the_builder_stumbles_over_it(
    algo_config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = random_llama(tmp_path / "merged")
    with pytest.raises(InputError, match=f"build.block_size: 32 does not fit hidden_size, 96 in .*: {algo_config} needs an even"):
        build.build(recipe(algo_config=algo_config), merged, tmp_path / "onnx")
    monkeypatch.setattr("stages.build.stage.check_model", lambda recipe, merged: None)
    with pytest.raises(ValueError, match="cannot reshape array"):
        build.build(recipe(algo_config=algo_config), merged, tmp_path / "onnx")


def first_logits(folder: Path) -> Logits:
    model = OnnxModel(folder)
    ((_, _, actual),) = model.logits([(model.encode_prompt("Text: hello"), [[0]])])
    return actual


@pytest.mark.parametrize("tie_word_embeddings", [False, True])
@pytest.mark.parametrize("block_size", [64, 256])
def test_blocks_that_do_not_divide_the_model_are_filled_up(tie_word_embeddings: bool, block_size: int, tmp_path: Path) -> None:
    merged = random_llama(tmp_path / "merged", tie_word_embeddings=tie_word_embeddings)
    full = first_logits(built(recipe("fp32"), merged, tmp_path / "full"))
    rounded = first_logits(built(recipe("int8", block_size=block_size), merged, tmp_path / "onnx"))
    assert np.abs(rounded - full).mean() < 0.05 * np.abs(full).mean()


def test_a_model_that_onnxruntime_cannot_run_is_found_by_the_build(tmp_path: Path) -> None:
    merged = random_llama(tmp_path / "merged", num_attention_heads=4)  # heads of 24, where its attention needs 16 or 32
    folder = built(recipe("fp32"), merged, tmp_path / "onnx")
    built_model.check(recipe("fp32"), merged, folder)
    with pytest.raises(InputError, match=r"the model built with these options does not run \(.*head_size shall be a multiple of"):
        built_model.load_checked(folder)


def test_a_model_with_nan_logits_is_found_by_the_build(tiny_phi3: Path, tmp_path: Path) -> None:
    folder = built(recipe("fp32"), tiny_phi3, tmp_path / "onnx")
    (folder / "model.onnx.data").write_bytes(b"\xff" * (folder / "model.onnx.data").stat().st_size)  # all NaN
    with pytest.raises(InputError, match="computes NaN or infinite logits"):
        built_model.load_checked(folder)


# the stage


@pytest.fixture
def project(tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with a merged model."""
    shutil.copytree(tiny_phi3, tmp_path / MERGED)
    PROMPT.save(tmp_path / MERGED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("build.precision=int3", "build.precision: the builder has no int3 for cpu"),
        ("+build.extra_options.fuse_qvk=false", "did you mean build.extra_options.fuse_qkv?"),
        ("build.block_size=24", "build.block_size: must be one of 16, 32, 64, 128, 256, got 24"),
    ],
    ids=["target", "option", "block size"],
)
def test_the_stage_refuses_what_was_not_composed_by_conf(override: str, message: str, project: Path, root: Path) -> None:
    shutil.copy(root / PARAMS, PARAMS)
    done = run_module("stages.build", override, folder=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert not (project / ONNX).exists()


def edit_config(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | changed)


def test_an_architecture_that_the_builder_does_not_know_is_refused_with_those_it_does(project: Path) -> None:
    edit_config(project / MERGED, architectures=["GPT2LMHeadModel"])
    with pytest.raises(InputError, match="GPT2LMHeadModel is not supported; use a model of Ernie4_5ForCausalLM"):
        build.main(build.Config(recipe(), MERGE, evaluation()))


def test_metrics_tell_the_recipe_the_versions_and_where_the_bytes_go(project: Path) -> None:
    build.main(build.Config(recipe(block_size=32), MERGE, evaluation()))
    figures = read_json(METRICS / "build.json")
    assert list(figures)[:2] == ["precision", "execution_provider"]
    assert figures["effective_bits_per_weight"] == 5.0
    assert figures["onnxruntime_genai"].startswith("0.")
    data = (project / ONNX / "model.onnx.data").stat().st_size / 1e6
    for table in ("mb_by_part", "mb_by_kind"):
        assert sum(figures[table].values()) == pytest.approx(data, abs=0.03)  # each is rounded to 0.01


def test_metrics_tell_how_many_rows_and_tokens_gptq_looked_at(project: Path) -> None:
    line = build.main(build.Config(recipe(algo_config="gptq", n_samples=20), MERGE, evaluation()))
    calibration = read_json(METRICS / "build.json")["calibration"]
    assert calibration["rows"] == calibration["rows_chosen"] == 20
    assert 20 * 20 < calibration["tokens"] == calibration["tokens_chosen"] < 20 * 30
    assert "calibrated" not in line
    build.main(build.Config(recipe(algo_config="k_quant"), MERGE, evaluation()))
    assert "calibration" not in read_json(METRICS / "build.json")


def test_rows_for_calibration_take_the_place_of_training_rows(project: Path) -> None:
    rows = read_jsonl(PREPARED / "train.jsonl")
    write_jsonl(PREPARED / "calibration.jsonl", rows[:5])
    build.main(build.Config(recipe(algo_config="gptq"), MERGE, evaluation()))
    assert read_json(METRICS / "build.json")["calibration"]["rows"] == 5
    (PREPARED / "calibration.jsonl").unlink()


def test_without_rows_gptq_is_refused_and_auto_takes_another(project: Path) -> None:
    (PREPARED / "train.jsonl").write_text("")
    with pytest.raises(InputError) as refused:
        build.main(build.Config(recipe(algo_config="gptq"), MERGE, evaluation()))
    cure = "set data.calibration_files, or algo_config=auto"
    assert str(refused.value) == f"build.algo_config: gptq needs rows, and there are no training rows; {cure}"
    assert build.main(build.Config(recipe(algo_config="auto"), MERGE, evaluation())).endswith(", quantized by k_quant_mixed")


def test_gptq_looks_at_no_more_tokens_than_the_cap_and_says_so(project: Path) -> None:
    write_jsonl(
        PREPARED / "train.jsonl", [{"segments": [context("w" * 900), learned(f"{n:099}", f"{n:099}")]} for n in range(60)]
    )
    replace(PROMPT, source_max_len=901).save(project / MERGED)
    line = build.main(build.Config(recipe(algo_config="gptq"), MERGE, evaluation()))
    expected = {"rows": 18, "rows_chosen": 60, "tokens": 18 * 901, "tokens_chosen": 60 * 901}  # a row is cut as in training
    assert read_json(METRICS / "build.json")["calibration"] == expected
    assert line.endswith(", calibrated on 18 of 60 rows, 16218 of their 54060 tokens")


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ([4, 4, 4], [4, 4, 4]),
        ([5, 4, 4], [5, 4]),
        ([4] * 8, [4, 4, 4]),
        ([1, 1, 1, 1, 100, 1, 1, 1, 1, 1], [1] * 8),
        ([30, 2, 2], [12]),  # a row that alone has more
        ([], []),
    ],
)
def test_rows_are_left_out_evenly_until_their_tokens_are_within_the_cap(lengths: list[int], kept: list[int]) -> None:
    assert [len(row) for row in build.within([[0] * length for length in lengths], 12)] == kept


def test_the_rows_that_are_left_are_from_the_whole_of_them() -> None:
    rows = [[number] * 100 for number in range(128)]
    assert [row[0] for row in build.within(rows, 800)] == [0, 16, 32, 48, 64, 80, 96, 112]


def measured(stage: str) -> str:
    """What a stage says that is to measure the model in models/onnx."""
    prediction = {"source": "row 1", "prompt": "Text: a\nTone: ", "expected": "b", "predicted": "b"}
    PROMPT.save(PREPARED)
    write_jsonl(PREPARED / "test.jsonl", [{"source": "row 1", "segments": [context("Text: a\nTone: "), learned("b", "b")]}])
    for name in ("merged", "onnx"):
        write_csv(PREDICTIONS / f"{name}.csv", [prediction], list(prediction))
    with pytest.raises(InputError) as raised:
        if stage == "evaluate":
            evaluate.main("onnx", evaluate.Config(evaluation()))
        elif stage == "compare":
            compare.main(compare.Config(evaluation()))
        else:
            benchmark.main("onnx", benchmark.Config(Benchmark(16, 2, [1], 0, 1)))
    return str(raised.value)


@pytest.mark.parametrize("stage", ["evaluate", "compare", "benchmark"])
def test_a_stage_that_measures_a_model_for_other_hardware_says_in_one_line_what_it_takes(stage: str, project: Path) -> None:
    build.main(build.Config(recipe(execution_provider="cuda"), MERGE, evaluation()))
    message = measured(stage)
    assert message.startswith(f"{ONNX}: the model is built for cuda, which does not run here (")
    assert message.endswith("onnxruntime-genai-cuda and onnxruntime-gpu for CUDA 13")
    assert "\n" not in message
