"""The inference benchmark on a tiny model: equal work, all figures, errors in one line. llama.cpp would have to be compiled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import processes
from benchmarks.inference import __main__ as inference
from benchmarks.inference import contender, models
from stages.benchmark.speed import Workload
from stages.build.stage import build
from tests.stages.recipes import recipe
from tunepress.config.base_model import BaseModel, Source
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb
from tunepress.models.hf_model import load_encoder

WORKLOAD = Workload(prompt_tokens=40, new_tokens=6, batch_sizes=(1, 2), repetitions=2, warm_up=1)
NAMES = ["onnx", "torch"]


@pytest.fixture(scope="module")
def measured(root: Path, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark reports of a tiny model. The parent is a small process, as it must be."""
    scratch = tmp_path_factory.mktemp("inference")
    code = (
        "import json; from pathlib import Path; from rich.console import Console\n"
        "from benchmarks.inference import __main__ as inference\n"
        f"workload = inference.Workload(**{vars(WORKLOAD)!r})\n"
        f"arguments = {NAMES!r}, workload, Path({str(tiny_phi3)!r}), None, Path({str(scratch)!r})\n"
        "print(json.dumps(inference.run_contenders(*arguments, Console(quiet=True))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    reported: dict[str, Any] = json.loads(ended.stdout)
    return reported


def test_every_contender_has_every_figure(measured: dict[str, Any], tiny_phi3: Path) -> None:
    assert list(measured["contenders"]) == NAMES
    assert measured["threads"] >= 1
    for figures in measured["contenders"].values():
        assert figures["load_seconds"] > 0
        assert figures["peak_memory_mb"] > 0
        for batch in ("batch_1", "batch_2"):
            assert len(figures[batch]) == 3
            for figure in figures[batch].values():
                assert 0 < figure["min"] <= figure["median"] <= figure["max"]
    onnx, torch = measured["contenders"]["onnx"], measured["contenders"]["torch"]
    assert (onnx["weights"], torch["weights"]) == ("int4", "float32")
    assert torch["size_mb"] == size_mb(tiny_phi3)
    assert torch["chosen_as_torch"] == {"same": 16, "of": 16}
    assert onnx["chosen_as_torch"]["of"] == 16


def test_the_peak_memory_is_that_of_the_contender_alone(measured: dict[str, Any]) -> None:
    onnx, torch = (measured["contenders"][name]["peak_memory_mb"] for name in NAMES)
    assert onnx < torch  # torch's libraries alone are larger than all of the other process


def test_the_table_has_a_line_for_each_batch(measured: dict[str, Any]) -> None:
    console = Console(width=160)  # a tiny model has large figures
    with console.capture() as captured:
        console.print(*inference.report(measured))
    lines = captured.get().splitlines()
    assert "40 tokens in, 6 out" in lines[0] and "of 2" in lines[0]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [(row[0], row[1]) for row in cells] == [("onnxruntime-genai", "1"), ("int4", "2"), ("torch", "1"), ("float32", "2")]
    for row, (name, batch) in zip(cells, [(name, batch) for name in NAMES for batch in ("batch_1", "batch_2")], strict=True):
        assert row[3:6] == [inference.spread(figure) for figure in measured["contenders"][name][batch].values()]
    assert cells[2][8] == "16/16"


def test_a_spread_is_written_with_its_extremes() -> None:
    assert inference.spread({"median": 1234.4, "min": 99.94, "max": 12345.0}) == "1,234 (99.9-12,345)"


def test_an_fp32_model_chooses_as_torch_does(tiny_phi3: Path, tmp_path: Path) -> None:
    build(recipe("fp32"), tiny_phi3, tmp_path / "onnx")
    prompt = models.prompt(tiny_phi3, WORKLOAD.prompt_tokens)
    onnx, torch = (
        contender.measure(name, str(path), prompt, threads=1, workload={**vars(WORKLOAD), "batch_sizes": [1]})["chosen"]
        for name, path in (("onnx", tmp_path / "onnx"), ("torch", tiny_phi3))
    )
    assert onnx == torch
    assert len(torch) == 16 and len(set(torch)) > 1


def test_the_prompt_is_the_phrases_cut_to_a_length(tiny_phi3: Path, root: Path) -> None:
    first = json.loads((root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines()[0])["phrase"]
    encoder = load_encoder(tiny_phi3)
    whole = encoder.encode_prompt(first)
    assert models.prompt(tiny_phi3, len(whole) + 20)[: len(whole)] == whole
    assert len(models.prompt(tiny_phi3, 300)) == 300
    with pytest.raises(
        InputError, match=r"--prompt-tokens: must be at most \d+, as many as data/raw/tone\.jsonl has, got 10000000"
    ):
        models.prompt(tiny_phi3, 10_000_000)


@pytest.mark.slow
def test_a_prompt_that_leaves_no_room_for_the_answer_is_refused_in_one_line(tiny_phi3: Path, tmp_path: Path) -> None:
    long = Workload(1020, 6, (1,), 1, 0)  # the tiny model has room for 1024
    with pytest.raises(InputError) as refused:
        inference.run_contenders(["torch"], long, tiny_phi3, None, tmp_path, Console(quiet=True))
    assert str(refused.value) == (
        "the models: exit code 1: --prompt-tokens: must be at most 1018, so that the model has room for the answer, got 1020"
    )


def test_llama_cpp_needs_the_file_that_the_base_model_came_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base_model\.source=folder: no GGUF file for llama\.cpp; leave it out"):
        models.gguf(BaseModel("mine", "mit", Source.folder, path="somewhere"), tmp_path)


def test_contenders_are_chosen_by_the_models_they_can_run() -> None:
    assert inference.contenders(None, pipeline=False) == ["onnx", "torch", "llama.cpp"]
    assert inference.contenders(None, pipeline=True) == ["onnx", "torch"]
    assert inference.contenders(["torch", "onnx"], pipeline=True) == ["onnx", "torch"]
    with pytest.raises(InputError, match="the pipeline makes no GGUF file"):
        inference.contenders(["llama.cpp"], pipeline=True)


@pytest.mark.parametrize(("chosen", "same"), [([1, 2, 3], 3), ([1, 4, 3], 2), ([2, 3, 1], 0)])
def test_choices_are_compared_with_torchs(chosen: list[int], same: int) -> None:
    figures: dict[str, dict[str, Any]] = {"torch": {"chosen": [1, 2, 3]}, "onnx": {"chosen": chosen}}
    inference.compare(figures)
    assert figures == {"torch": {"chosen_as_torch": {"same": 3, "of": 3}}, "onnx": {"chosen_as_torch": {"same": same, "of": 3}}}
    alone: dict[str, dict[str, Any]] = {"onnx": {"chosen": chosen}}
    inference.compare(alone)
    assert alone == {"onnx": {}}


@pytest.mark.parametrize("peer", ["olive", "llama_cpp"])
def test_every_package_of_a_peer_is_pinned(peer: str) -> None:
    assert processes.pins(peer)
    assert all(version and version[0].isdigit() for version in processes.pins(peer).values())


def test_too_few_tokens_are_refused_in_one_line(root: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", "--new-tokens", "1"], cwd=root, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr == "benchmarks.inference: new_tokens: must be at least 2, got 1\n"
