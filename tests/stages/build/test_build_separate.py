"""build.adapters=separate: two tasks share one int4 model, each with a small file of its own, and each is answered as trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import pytest

from stages import compare
from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.merge import stage as merge
from stages.train import stage as train
from tests.stages.outputs import hashes
from tests.stages.random_adapter import write_random_adapter
from tests.stages.recipes import MERGE, evaluation, recipe
from tests.stages.training import new_project, sections
from tools.cli import verify
from tunepress.config.build import Adapters
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl, size_mb, write_jsonl
from tunepress.core.paths import ADAPTER, ADAPTER_FILE, BASE, CONFORMANCE, METRICS, ONNX
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.bnb_4bit import Quantization
from tunepress.text.packing import Corpus
from tunepress.text.prompt import Prompt
from tunepress.text.segments import Turn, context, learned

LABELS = ("joy", "fear")
TASKS = {"tone": {"day": "joy", "night": "fear"}, "opposite": {"day": "fear", "night": "joy"}}
TIMES = [*TASKS["tone"]] * 10
PROMPTS = [f"Text: {number} {time} {time} {time}\nTone: " for number, time in enumerate(TIMES)]
SEPARATE = recipe(block_size=32, accuracy_level=4, adapters=Adapters.separate)

pytestmark = pytest.mark.usefixtures("one_thread")


def right_answers(task: str) -> list[str]:
    return [TASKS[task][time] for time in TIMES]


@pytest.fixture(scope="module")
def projects(root: Path, tiny_phi3: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each task, in which train, merge and build have run."""
    folders = {task: tmp_path_factory.mktemp(task) for task in TASKS}
    for task, folder in folders.items():
        prepared = new_project(folder, tiny_phi3)
        Prompt("Text: {phrase}\nTone: ", "{tone}", LABELS, source_max_len=100, max_new_tokens=8).save(prepared)
        Corpus(pad_to_max_len=None, use_attention_mask=True).save(prepared)
        rows = [
            {"source": f"rows.jsonl row {number}", "segments": [context(prompt), learned(tone, tone)], "sequence": number}
            for number, (prompt, tone) in enumerate(zip(PROMPTS, right_answers(task), strict=True), start=1)
        ]
        for name, members in {"train": rows, "validation": [], "test": rows}.items():
            write_jsonl(prepared / f"{name}.jsonl", members)
        quick: dict[str, Any] = {"num_train_epochs": 20, "per_device_train_batch_size": 10, "learning_rate": 0.01}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            train.main(sections(root, adapter={"r": 16}, **quick))
            merge.main(merge.Config(MERGE))
            build.main(build.Config(SEPARATE, MERGE, evaluation()))
    return folders


@pytest.fixture
def inside(projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first task's project as the working folder."""
    monkeypatch.chdir(projects["tone"])
    return projects["tone"]


def metrics(name: str) -> Any:
    return json.loads((METRICS / f"{name}.json").read_text(encoding="utf-8"))


def test_two_tasks_differ_in_nothing_but_the_adapters_file(projects: dict[str, Path]) -> None:
    first, second = (hashes(folder / ONNX) for folder in projects.values())
    assert first.pop(ADAPTER_FILE) != second.pop(ADAPTER_FILE)
    assert first == second
    assert "model.onnx.data" in first


def test_one_loaded_model_answers_both_tasks_in_turn(projects: dict[str, Path]) -> None:
    shared = projects["tone"] / ONNX
    model = og.Model(str(shared))
    tokenizer, adapters = og.Tokenizer(model), og.Adapters(model)
    for task, folder in projects.items():
        adapters.load(str(folder / ONNX / ADAPTER_FILE), task)

    def answer(prompt: str, task: str) -> str:
        tokens = tokenizer.encode(prompt)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(do_sample=False, max_length=len(tokens) + 8)
        generator = og.Generator(model, parameters)
        generator.set_active_adapter(adapters, task)
        generator.append_tokens(tokens)
        while not generator.is_done():
            generator.generate_next_token()
        return str(tokenizer.decode(generator.get_sequence(0)[len(tokens) :]))

    message = {task: [] for task in TASKS}  # type: dict[str, list[str]]
    for prompt in PROMPTS:
        for task, answers in message.items():
            answers.append(answer(prompt, task))
    assert message == {task: right_answers(task) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_and_compare_see_the_adapter(task: str, projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(projects[task])
    for candidate in ("base", "merged", "onnx"):
        evaluate.main(candidate, evaluate.Config(evaluation()))
    assert (
        metrics("evaluate/base")["accuracy"] < metrics("evaluate/onnx")["accuracy"] == metrics("evaluate/merged")["accuracy"] == 1
    )
    compare.main(compare.Config(evaluation()))
    assert metrics("compare")["changed"] == 0
    assert metrics("compare")["top1_agreement"] == 1
    assert verify.verify(ONNX).startswith("30 of 30 answers as recorded")
    assert ADAPTER_FILE in read_jsonl(CONFORMANCE)[0]["model"]


def test_the_benchmark_runs_with_the_adapter(inside: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(ONNX, bare)
    (bare / ADAPTER_FILE).unlink()
    prompt = OnnxModel(ONNX).encode_prompt(PROMPTS[0])
    assert OnnxModel(ONNX, 1).prefill([prompt], 4) != OnnxModel(bare, 1).prefill([prompt], 4)


def test_a_full_precision_model_with_its_adapter_agrees_with_the_merged_model_to_numerical_noise(
    inside: Path, tmp_path: Path
) -> None:
    build.build_separate(recipe("fp32", adapters=Adapters.separate), MergeBase.original, tmp_path)
    rows = [Turn("row", prompt, tone, tone) for prompt, tone in zip(PROMPTS, right_answers("tone"), strict=True)]
    figures = compare.compare_tokens(TorchModel(inside / "models/merged"), OnnxModel(tmp_path), rows)
    assert figures["top1_agreement"] == 1
    assert figures["mean_kl"] < 1e-7


def test_the_figures_tell_the_adapters_share_of_the_size(inside: Path) -> None:
    assert metrics("build")["size_mb"] == size_mb(ONNX)
    assert metrics("build")["adapter_mb"] == size_mb(ONNX / ADAPTER_FILE)
    assert 0 < metrics("build")["adapter_mb"] < metrics("build")["size_mb"]


def test_a_second_build_gives_the_same_bytes(inside: Path) -> None:
    before = hashes(ONNX)
    build.main(build.Config(SEPARATE, MERGE, evaluation()))
    assert hashes(ONNX) == before


def test_an_adapter_that_cannot_be_kept_apart_is_refused_before_anything_is_built(
    inside: Path, tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    BASE.parent.mkdir()
    BASE.symlink_to(tiny_phi3)
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("built"))
    write_random_adapter(tiny_phi3, ADAPTER, use_dora=True)
    shutil.copy(inside / ADAPTER / "prompt.json", ADAPTER)
    with pytest.raises(
        InputError,
        match=r"^models/adapter: .*lora_magnitude_vector is not supported, only LoRA factors .*set build\.adapters=merged$",
    ):
        build.main(build.Config(SEPARATE, MERGE, evaluation()))
    shutil.rmtree(ADAPTER)
    write_random_adapter(tiny_phi3, ADAPTER)
    shutil.copy(inside / ADAPTER / "prompt.json", ADAPTER)
    Quantization("nf4", True, compensated=False, dtype="float32").save(ADAPTER)
    with pytest.raises(InputError, match=r"^build\.adapters: .*set merge\.base=original, or build\.adapters=merged$"):
        build.main(build.Config(SEPARATE, Merge(MergeBase.dequantized), evaluation()))
    assert not list(ONNX.parent.glob("*onnx*"))
