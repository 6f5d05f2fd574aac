"""merge, build and evaluate: the model that is shipped says what the model that was trained says."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime_genai as og
import pytest
import torch
from peft import PeftModel
from sklearn.metrics import accuracy_score

from benchmarks import score
from benchmarks.evaluate import contender as benchmark_of_evaluate
from benchmarks.int4 import contender as benchmark_of_int4
from stages import compare
from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.merge import stage as merge
from stages.train import stage as train
from tests.stages.outputs import hashes
from tests.stages.recipes import MERGE, evaluation, recipe
from tests.stages.training import new_project, sections
from tools.cli import verify
from tunepress.config.evaluate import Calibration, Guidance, Split
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, size_mb, write_jsonl
from tunepress.core.paths import ADAPTER, BASE, CHANGED, CONFORMANCE, MERGED, METRICS, ONNX, PREDICTIONS, PREPARED
from tunepress.inference.calibration import fit_temperature
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_encoder, load_model
from tunepress.text.packing import Corpus
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, context, last_turn, learned

LABELS = ("joy", "fear")
PHRASES = ["A fine day", "Über die Straße", "雨が降る", "🎉 at last!", "?"] * 4
PROMPTS = [f"Text: number {number}, {phrase}\nTone: " for number, phrase in enumerate(PHRASES)]
TONES = ["joy" if phrase.endswith(("!", "day")) else "fear" for phrase in PHRASES]
FP32 = recipe("fp32")
INT4 = recipe(block_size=32, accuracy_level=4, is_symmetric=True)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def project(root: Path, tiny_phi3: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder in which train, merge and an fp32 build have run."""
    folder = tmp_path_factory.mktemp("press")
    prepared = new_project(folder, tiny_phi3)
    Prompt("Text: {phrase}\nTone: ", "{tone}", LABELS, source_max_len=100, max_new_tokens=8).save(prepared)
    Corpus(pad_to_max_len=None, use_attention_mask=True).save(prepared)
    rows = [
        {"source": f"rows.jsonl row {number}", "segments": [context(prompt), learned(tone, tone)], "sequence": number}
        for number, (prompt, tone) in enumerate(zip(PROMPTS, TONES, strict=True), start=1)
    ]
    for name, members in {"train": rows, "validation": [], "test": rows}.items():
        write_jsonl(prepared / f"{name}.jsonl", members)
    quick: dict[str, Any] = {"num_train_epochs": 40, "per_device_train_batch_size": 10, "learning_rate": 0.01}
    cfg = sections(root, adapter={"r": 16}, **quick)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(cfg)
        merge.main(merge.Config(MERGE))
        build.main(build.Config(FP32, MERGE, evaluation()))
    write_jsonl(prepared / "validation.jsonl", rows[:3])  # the training has none to watch
    return folder


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


@pytest.fixture(scope="module")
def int4(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int4") / "onnx"
    build.build(INT4, project / MERGED, folder)
    return folder


def turns(split: str) -> list[Turn]:
    return [last_turn(row) for row in read_jsonl(PREPARED / f"{split}.jsonl")]


def metrics(name: str) -> Any:
    return json.loads((METRICS / f"{name}.json").read_text(encoding="utf-8"))


@torch.inference_mode()
def logits(model: Any, prompt: str) -> torch.Tensor:
    actual: torch.Tensor = model(torch.tensor([load_encoder(BASE).encode_prompt(prompt)])).logits
    return actual


# merge


def test_the_merged_model_gives_the_logits_of_base_and_adapter_and_not_of_the_base() -> None:
    base, merged = load_model(BASE).eval(), load_model(MERGED).eval()
    untrained = [logits(base, prompt) for prompt in PROMPTS[:5]]
    adapted = PeftModel.from_pretrained(base, ADAPTER).eval()
    for prompt, before in zip(PROMPTS[:5], untrained, strict=True):
        actual = logits(merged, prompt)
        torch.testing.assert_close(actual, logits(adapted, prompt), atol=1e-5, rtol=0)
        assert (actual - before).abs().max() > 0.1


def test_the_merged_weights_are_those_of_pefts_own_merge() -> None:
    expected = PeftModel.from_pretrained(load_model(BASE), ADAPTER).merge_and_unload().state_dict()
    actual = load_model(MERGED).state_dict()
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.dtype is torch.float32
        assert torch.equal(tensor, expected[name]), name


def test_the_merged_model_is_a_plain_model_with_tokenizer_and_figures() -> None:
    names = {path.name for path in MERGED.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "prompt.json"} <= names
    assert not {name for name in names if name.startswith("adapter") or name.endswith((".bin", ".partial"))}
    assert metrics("merge") == {"merged_modules": 8, "size_mb": size_mb(MERGED)}


def test_a_second_merge_gives_the_same_bytes() -> None:
    first = hashes(MERGED)
    merge.main(merge.Config(MERGE))
    assert hashes(MERGED) == first


def test_one_prompt_file_goes_from_the_rows_to_the_shipped_model() -> None:
    prompts = {(folder / "prompt.json").read_bytes() for folder in (PREPARED, ADAPTER, MERGED, ONNX)}
    assert len(prompts) == 1


# build


def test_the_fp32_model_answers_as_torch_does() -> None:
    expected = TorchModel(MERGED, batch_size=4).answers(PROMPTS, 8)
    assert OnnxModel(ONNX).answers(PROMPTS, 8) == expected
    assert set(expected) >= set(LABELS)  # training told them apart, so they can differ


def test_the_int4_model_is_smaller_and_answers(int4: Path) -> None:
    assert (int4 / "model.onnx.data").stat().st_size < (ONNX / "model.onnx.data").stat().st_size
    answers = OnnxModel(int4).answers(PROMPTS, 8)
    assert len(answers) == len(PROMPTS)
    assert any(answers)


def test_a_second_build_gives_the_same_bytes(int4: Path, tmp_path: Path) -> None:
    build.build(INT4, MERGED, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(int4)


def test_the_built_model_holds_nothing_of_this_machine(project: Path, int4: Path) -> None:
    for file in int4.iterdir():
        assert str(project).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "Text: two\nlines\r\nand\ttabs\n\n",
        "  spaces before, after and   between  ",
        "Grüße, œuvre, Ångström; e\u0301 is not \u00e9",
        "雨が降る。Привет, мир! مرحبا",
        "🎉👩‍👩‍👧‍👦🇪🇺 1️⃣",
        '<|user|>\nWhat\'s $5 + "5"?<|end|>\n<|assistant|>\n',
        "<|endoftext|>",
        "\u200b\ufeff\u00a0\x07",
        "it's we've I'LL 12345 3.14 ...!?",
    ],
)
def test_the_shipped_tokenizer_gives_the_tokens_of_training(text: str) -> None:
    shipped = og.Tokenizer(og.Model(str(ONNX)))
    assert list(shipped.encode(text)) == load_encoder(BASE).encode_prompt(text)


def test_gptq_stays_closer_to_the_merged_model_than_plain_rounding(tmp_path: Path) -> None:
    only_layers: dict[str, Any] = {"block_size": 32, "accuracy_level": 1, "nodes_to_exclude": ["/lm_head/MatMul"]}
    rows = turns("test")
    kl: dict[str | None, float] = {}
    for algo_config in (None, "gptq"):
        build.build(recipe(algo_config=algo_config, **only_layers), MERGED, tmp_path / str(algo_config))
        figures = compare.compare_tokens(TorchModel(MERGED), OnnxModel(tmp_path / str(algo_config)), rows)
        kl[algo_config] = figures["mean_kl"]
    assert kl["gptq"] < 0.5 * kl[None]


def test_what_the_builder_refuses_is_told_in_one_line_and_the_earlier_model_stays() -> None:
    before = hashes(ONNX)
    with pytest.raises(InputError) as refused:
        build.main(build.Config(recipe(matmul_mixed_precision="all:int8"), MERGE, evaluation()))
    assert str(refused.value).startswith("build: the builder refuses int4 for cpu (")
    assert "\n" not in str(refused.value)
    assert hashes(ONNX) == before


def test_a_build_without_a_merged_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build.build(INT4, tmp_path / "merged", tmp_path / "onnx")


# evaluate


def evaluated(candidate: str, **settings: Any) -> tuple[list[dict[str, str]], Any]:
    """A candidate's predictions and figures."""
    evaluate.main(candidate, evaluate.Config(evaluation(**settings)))
    with (PREDICTIONS / f"{candidate}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), metrics(f"evaluate/{candidate}")


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("candidate", ["base", "merged", "onnx"])
def test_every_candidate_is_measured_on_every_row_of_the_split(candidate: str, split: Split) -> None:
    predictions, figures = evaluated(candidate, split=split)
    rows = turns(split.value)
    assert figures["split"] == split.value
    for name in ("source", "prompt", "expected"):
        assert [row[name] for row in predictions] == [getattr(row, name) for row in rows]
    predicted = [row["predicted"] for row in predictions]
    assert set(predicted) <= {*LABELS, "(invalid)"}
    assert figures["rows"] == len(rows)
    assert figures["accuracy"] == pytest.approx(accuracy_score([row.expected for row in rows], predicted), abs=1e-4)
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]


def test_training_is_seen_in_the_figures_and_fp32_onnx_changes_none_of_them() -> None:
    (_, base), (merged_said, merged), (onnx_said, onnx) = (evaluated(candidate) for candidate in evaluate.CANDIDATES)
    assert merged["accuracy"] > base["accuracy"]
    assert (onnx_said, onnx) == (merged_said, merged)


def test_a_full_precision_build_agrees_to_numerical_noise_and_int4_does_not(project: Path, int4: Path) -> None:
    for candidate in ("merged", "onnx"):
        evaluated(candidate)
    compare.main(compare.Config(evaluation()))
    figures = metrics("compare")
    rows = turns("test")
    tokens = sum(len(load_encoder(BASE).encode_completion(row.completion, row.prompt)) for row in rows)
    assert figures.pop("mean_kl") < 1e-7
    assert figures == {
        "rows": len(rows),
        "changed": 0,
        "flipped_share": 0.0,
        "only_merged_right": 0,
        "only_onnx_right": 0,
        "p_value": 1.0,
        "tokens": tokens,
        "top1_agreement": 1.0,
        "tokenized_differently": 0,
    }
    assert CHANGED.read_text(encoding="utf-8").splitlines() == ['"source","prompt","expected","merged","onnx"']
    rounded = compare.compare_tokens(TorchModel(MERGED), OnnxModel(int4), rows)
    assert rounded["mean_kl"] > 1e-4


@pytest.mark.parametrize("conformance_rows", [False, True])
def test_what_the_shipped_model_answers_is_recorded_for_other_machines(conformance_rows: bool) -> None:
    for candidate in ("merged", "onnx"):
        evaluated(candidate)
    compare.main(compare.Config(evaluation(conformance_rows=conformance_rows)))
    _, *lines = read_jsonl(CONFORMANCE)
    rows, invented = [row.prompt for row in turns("test")], [f"Text: {sentence}\nTone: " for sentence in compare.SENTENCES]
    assert [line["prompt"] for line in lines] == (rows if conformance_rows else invented)
    assert {tuple(line["probabilities"]) for line in lines} == {LABELS}
    assert verify.verify(ONNX).startswith(f"{len(lines)} of {len(lines)} answers as recorded (at least ")


def test_rows_that_the_two_models_answer_differently_are_listed() -> None:
    merged_rows = [
        {"source": f"row {n}", "prompt": "p", "expected": "joy", "predicted": answer}
        for n, answer in enumerate(("joy", "fear", "joy"))
    ]
    onnx_rows = [row | {"predicted": tone} for row, tone in zip(merged_rows, ("joy", "joy", "fear"), strict=True)]
    assert [(row["source"], row["merged"], row["onnx"]) for row in compare.changed_rows(merged_rows, onnx_rows)] == [
        ("row 1", "fear", "joy"),
        ("row 2", "joy", "fear"),
    ]
    assert compare.paired_test(merged_rows, onnx_rows) == {"only_merged_right": 1, "only_onnx_right": 1, "p_value": 1.0}


def test_the_top_label_stands_beside_the_answer() -> None:
    predictions, figures = evaluated("merged")
    assert {row["top_label"] for row in predictions} <= set(LABELS)
    assert all(1 / len(LABELS) <= float(row["confidence"]) <= 1 for row in predictions)
    right = sum(row["top_label"] == row["expected"] for row in predictions)
    assert figures["likelihood_accuracy"] == pytest.approx(right / len(predictions), abs=1e-4)
    assert figures["perplexity"] >= 1
    assert 0 <= figures["calibration_error"] <= 1


@pytest.mark.parametrize("candidate", ["merged", "onnx"])
def test_the_temperature_is_fitted_for_merged_and_shipped_with_onnx(
    candidate: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperature = fit_temperature(OnnxModel(ONNX), Prompt.load(ONNX))
    shutil.copytree(ONNX, tmp_path / "onnx")
    replace(Prompt.load(ONNX), temperature=temperature).save(tmp_path / "onnx")
    monkeypatch.setattr(evaluate, "ONNX", tmp_path / "onnx")
    predictions, figures = evaluated(candidate, calibration=Calibration.temperature, abstain_below=0.6)
    assert figures["temperature"] == temperature  # the same model in full precision
    assert figures["calibrated"].keys() == {"calibration_error", "brier", "nll"}
    assert figures["coverage"] == pytest.approx(sum(float(row["confidence"]) >= 0.6 for row in predictions) / len(predictions))
    assert all((row["confidence"] == row["raw_confidence"]) == (temperature == 1) for row in predictions)


def test_the_base_model_is_not_calibrated() -> None:
    predictions, figures = evaluated("base", calibration=Calibration.temperature)
    assert "temperature" not in figures
    assert "raw_confidence" not in predictions[0]


def test_build_ships_the_temperature_and_the_bound_in_prompt_json(project: Path) -> None:
    before = Prompt.load(ONNX)
    try:
        line = build.main(build.Config(FP32, MERGE, evaluation(calibration=Calibration.temperature, abstain_below=0.7)))
        shipped = Prompt.load(ONNX)
        assert shipped.temperature
        assert line.endswith(f", temperature {shipped.temperature:g}")
        assert shipped == replace(before, temperature=shipped.temperature, abstain_below=0.7)
    finally:
        build.main(build.Config(FP32, MERGE, evaluation()))
    assert Prompt.load(ONNX) == before


def test_with_guidance_every_answer_is_a_label_and_the_model_is_shipped_with_it() -> None:
    labels = Guidance.labels
    before = Prompt.load(ONNX)
    try:
        build.main(build.Config(FP32, MERGE, evaluation(guidance=labels)))
        shipped = Prompt.load(ONNX)
        assert shipped == replace(before, guidance='start: ("joy" | "fear")\n')
        for candidate in ("base", "merged", "onnx"):
            unguided = evaluated(candidate)[1]
            predictions, figures = evaluated(candidate, guidance=labels)
            assert {row["answer"] for row in predictions} <= set(LABELS)
            assert figures["invalid_rate"] == 0
            assert figures["unguided"] == {key: unguided[key] for key in figures["unguided"]}
            assert figures["likelihood_accuracy"] == unguided["likelihood_accuracy"]
        assert OnnxModel(ONNX).answer(PROMPTS[0], 8, shipped.guidance) in LABELS
    finally:
        build.main(build.Config(FP32, MERGE, evaluation()))
    assert Prompt.load(ONNX) == before


def test_rows_whose_most_likely_label_is_another_are_counted() -> None:
    merged = [{"top_label": label} for label in ("joy", "joy", "fear", "fear")]
    onnx = [{"top_label": label} for label in ("joy", "fear", "fear", "fear")]
    assert compare.flipped(merged, onnx) == {"flipped_share": 0.25}
    assert compare.flipped([{"predicted": "joy"}], [{"predicted": "fear"}]) == {}


def test_a_metric_of_the_users_own_is_a_function_named_in_the_configuration(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "of_mine.py").write_text("def brevity(expected, answers):\n    return sum(map(len, answers)) / len(expected)\n")
    monkeypatch.syspath_prepend(str(project))
    predictions, figures = evaluated("onnx", metric="of_mine.brevity")
    assert figures["brevity"] == pytest.approx(sum(len(row["answer"]) for row in predictions) / len(predictions), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_mine_too.absent", "evaluate.metric: of_mine_too.absent is not a function that can be imported"),
        ("nowhere.at_all", "evaluate.metric: nowhere.at_all is not a function that can be imported"),
        ("of_mine_too.broken", "evaluate.metric: broken failed (ZeroDivisionError: division by zero)"),
        ("of_mine_too.wordy", "evaluate.metric: wordy failed (ValueError: could not convert string to float: 'good')"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    functions = ("def broken(expected, answers):\n    return 1 / 0\n", "def wordy(expected, answers):\n    return 'good'\n")
    (project / "of_mine_too.py").write_text("".join(functions))
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(InputError) as refused:
        evaluated("onnx", metric=name)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_models_are_compared_on_the_rows_of_the_split(project: Path) -> None:
    for candidate in ("merged", "onnx"):
        evaluated(candidate, split=Split.validation)
    compare.main(compare.Config(evaluation(split=Split.validation)))
    rows = turns("validation")
    tokens = sum(len(load_encoder(BASE).encode_completion(row.completion, row.prompt)) for row in rows)
    assert (metrics("compare")["rows"], metrics("compare")["tokens"]) == (len(rows), tokens)


def test_the_batch_size_changes_no_answer() -> None:
    assert evaluated("merged", batch_size=1) == evaluated("merged", batch_size=16)


def test_settings_and_rows_that_cannot_be_measured_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in ({"batch_size": 0}, {"confidence_level": 1.0}, {"confidence_level": 0.0}):
        with pytest.raises(InputError, match="batch_size must be at least 1 and confidence_level between 0 and 1"):
            evaluated("onnx", **settings)
    monkeypatch.chdir(tmp_path)
    Prompt("{a}", "{b}", None, 10).save(tmp_path / PREPARED)
    write_jsonl(PREPARED / "test.jsonl", [])
    with pytest.raises(InputError, match=r"no rows; set data\.test_size or data\.test_files"):
        evaluated("onnx")
    write_jsonl(PREPARED / "validation.jsonl", [])
    with pytest.raises(InputError, match=r"validation.jsonl: no rows; set data\.eval_dataset_size"):
        evaluated("onnx", split=Split.validation)


def test_what_benchmarks_count_is_what_evaluate_counts() -> None:
    figures = {candidate: evaluated(candidate)[1] for candidate in ("merged", "onnx")}
    for candidate, model in (("merged", TorchModel(MERGED, 4)), ("onnx", OnnxModel(ONNX))):
        staged, looped = benchmark_of_evaluate.stage(candidate, None), benchmark_of_evaluate.loop(candidate, None)
        assert staged["results"] == looped["results"]
        for result in (staged, looped):
            assert result["perplexity"] == pytest.approx(figures[candidate]["perplexity"], abs=1e-3)
        right = round(figures[candidate]["accuracy"] * len(PROMPTS))
        assert score.count(model) == {"right": right, "test_rows": len(PROMPTS)}
    merged, onnx = benchmark_of_int4.compare([str(MERGED), str(ONNX)])["models"]
    assert merged["rows"] == onnx["rows"] == len(PROMPTS)
    assert merged["perplexity"] == pytest.approx(figures["merged"]["perplexity"], abs=1e-3)
    assert (onnx["right"], onnx["top1_agreement"]) == (merged["right"], 1.0)


def test_an_unknown_candidate_is_refused_in_one_line(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "stages.evaluate", "gpt"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "evaluate: name a candidate: python -m stages.evaluate {base,merged,onnx}\n"


def test_the_model_does_not_hold_the_commit_of_the_repo_that_the_environment_lies_in(tiny_phi3: Path, tmp_path: Path) -> None:
    build.build(recipe(block_size=32, accuracy_level=4), tiny_phi3, tmp_path / "onnx")
    stamped = onnx.load(tmp_path / "onnx/model.onnx", load_external_data=False).producer_version
    assert stamped == f"{og.__version__}+{og.__commit__[:7]}"
