"""Where answers end, from the base model's files to the built model: the same tokens and the same context in every runtime."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from stages import compare
from stages.benchmark import stage as benchmark
from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.fetch.stage import fetch
from stages.merge import stage as merge
from stages.prepare import stage as prepare
from stages.report.figures import Run
from stages.report.gate import verdicts
from stages.train import stage as train
from tests.stages.recipes import MERGE, NO_GATE, evaluation, recipe
from tests.stages.training import new_project, sections
from tools.cli import predict
from tools.doctor import places
from tools.doctor.finding import State
from tunepress.config.base_model import BaseModel
from tunepress.config.benchmark import Benchmark
from tunepress.config.data import Data
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, read_jsonl, write_json, write_jsonl
from tunepress.core.paths import BASE, MERGED, METRICS, ONNX, PREPARED
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_encoder, load_tokenizer
from tunepress.text.prompt import Prompt
from tunepress.text.segments import prompt_text

Project = Callable[..., Path]
Files = dict[str, dict[str, Any] | None]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def project(root: Path, tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Makes a project's folder, and the working folder of this test, of a base model and rows; prepare has run."""

    def make(base: Path, rows: list[dict[str, str]], **settings: Any) -> Path:
        new_project(tmp_path, base)
        monkeypatch.chdir(tmp_path)
        write_jsonl(Path("rows.jsonl"), rows)
        values = {"files": ["rows.jsonl"], "text_template": "{q} => {a}", "completion_column": "a"}
        split = {"labels": None, "eval_dataset_size": 0.0, "test_size": 0.5}
        chosen = OmegaConf.merge(
            OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/tone.yaml"), values | split | settings
        )
        data = OmegaConf.to_object(chosen)
        assert isinstance(data, Data)
        prepare.main(prepare.Config(data, 0))
        return tmp_path

    yield make


def press(root: Path, **options: Any) -> None:
    """Trains one epoch, merges, and builds in full precision unless told otherwise."""
    train.main(sections(root, eval_strategy="no"))
    merge.main(merge.Config(MERGE))
    build.main(build.Config(recipe(**({"precision": "fp32"} | options)), MERGE, evaluation()))


def measured(*candidates: str) -> dict[str, dict[str, Any]]:
    """Runs evaluate for some candidates, merged and onnx among them, and compare."""
    for candidate in candidates:
        evaluate.main(candidate, evaluate.Config(evaluation()))
    compare.main(compare.Config(evaluation()))
    actual = {name: read_json(METRICS / "evaluate" / f"{name}.json") for name in candidates}
    return actual | {"compare": read_json(METRICS / "compare.json")}


# the tokens that end an answer

END, OTHER = 256, 259  # <|endoftext|> and <|end|> of the tiny model
ROWS = [{"q": f"Is {number} even?", "a": "yes, it is" if number % 2 == 0 else "no"} for number in range(12)]
MODELS: dict[str, tuple[Files, list[int]]] = {
    "the second of a list in the tokenizer": (
        {"generation_config.json": {"eos_token_id": [END, OTHER]}, "tokenizer_config.json": {"eos_token": "<|end|>"}},
        [END, OTHER],
    ),
    "config.json with a number": (
        {
            "generation_config.json": None,
            "config.json": {"eos_token_id": OTHER},
            "tokenizer_config.json": {"eos_token": "<|end|>"},
        },
        [OTHER],
    ),
    "config.json with a list": ({"generation_config.json": None, "config.json": {"eos_token_id": [OTHER, END]}}, [OTHER, END]),
    "the tokenizer alone": (
        {
            "generation_config.json": None,
            "config.json": {"eos_token_id": None, "bos_token_id": None},
            "tokenizer_config.json": {"eos_token": "<|end|>"},
        },
        [OTHER],
    ),
    "a generation_config.json without it": (
        {
            "generation_config.json": {"eos_token_id": None},
            "config.json": {"eos_token_id": OTHER},
            "tokenizer_config.json": {"eos_token": "<|end|>"},
        },
        [OTHER],
    ),
}


def changed(base: Path, folder: Path, files: Files) -> Path:
    """A copy of a model folder in which fields of some JSON files are others, or a file is missing."""
    shutil.copytree(base, folder)
    for name, fields in files.items():
        if fields is None:
            (folder / name).unlink()
        else:
            content = json.loads((folder / name).read_text(encoding="utf-8")) | fields
            kept = {key: value for key, value in content.items() if value is not None or key not in fields}
            (folder / name).write_text(json.dumps(kept), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_one_list_of_ends_goes_from_the_base_models_files_to_every_runtime(
    model: str, root: Path, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory, project: Project
) -> None:
    files, ends = MODELS[model]
    project(changed(tiny_phi3, tmp_path_factory.mktemp("changed") / "base", files), ROWS)
    assert Prompt.load(PREPARED).eos_token_ids == tuple(ends)
    assert places.base(BASE, 256).state is State.ok
    press(root)
    assert read_json(MERGED / "generation_config.json")["eos_token_id"] in (ends, *ends)
    assert GenaiConfig.read(ONNX).eos_token_ids == ends
    merged, onnx = TorchModel(MERGED, 4, Prompt.load(MERGED).eos_token_ids), OnnxModel(ONNX)
    for answer in ("yes", "yes<|end|>", "yes<|endoftext|>"):
        expected = load_encoder(BASE, ends).encode_completion(answer, "Is 3 even? => ")
        assert merged.encode_completion(answer, "Is 3 even? => ") == onnx.encode_completion(answer, "Is 3 even? => ") == expected
        assert expected[-1] in ends
    figures = measured("merged", "onnx")
    assert figures["onnx"] == figures["merged"]
    assert figures["compare"]["tokenized_differently"] == 0
    assert figures["compare"]["mean_kl"] < 1e-6


def test_a_model_without_an_end_is_refused_by_prepare_and_by_doctor(tiny_phi3: Path, tmp_path: Path, project: Project) -> None:
    files: Files = {
        "generation_config.json": None,
        "config.json": {"eos_token_id": None},
        "tokenizer_config.json": {"eos_token": None},
    }
    base = changed(tiny_phi3, tmp_path / "endless", files)
    with pytest.raises(InputError, match="no token ends an answer") as refused:
        project(base, ROWS)
    finding = places.base(base, 256)
    assert (finding.state, finding.detail) == (State.error, str(refused.value).replace(str(BASE), str(base)))
    assert not PREPARED.joinpath("prompt.json").exists()


def test_a_mark_without_an_embedding_is_refused_where_a_row_has_it(tiny_phi3: Path, tmp_path: Path, project: Project) -> None:
    base = changed(tiny_phi3, tmp_path / "marked", {})
    tokenizer = load_tokenizer(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(base)
    with pytest.raises(InputError) as refused:
        project(base, [*ROWS, {"q": "<image> even?", "a": "no"}])
    assert str(refused.value) == (
        "rows.jsonl row 13: contains <image> (token 260), for which the model has no embedding; "
        "remove it from the rows and the template, or resize the model's embeddings"
    )


def test_rows_that_the_built_model_tokenizes_differently_are_told_and_can_fail_the_gate(
    root: Path, tiny_phi3: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tiny_phi3, ROWS)
    press(root)
    settings = read_json(ONNX / "genai_config.json")
    settings["model"]["eos_token_id"] = [OTHER, END]  # what the builder writes where the tokenizer has another end
    write_json(ONNX / "genai_config.json", settings)
    rows = len(read_jsonl(PREPARED / "test.jsonl"))
    figures = measured("merged", "onnx")
    assert figures["compare"]["tokenized_differently"] == rows == 6
    assert figures["onnx"]["perplexity"] != figures["merged"]["perplexity"]
    output = capsys.readouterr().out
    first = read_jsonl(PREPARED / "test.jsonl")[0]["source"]
    assert f"compare: {first}: the built model's tokenizer gives other tokens than in training, and in 5 more rows" in output
    benchmarks = {name: {"batch_1": {"decode_tokens_per_second": {"median": 1.0}}} for name in ("merged", "onnx")}
    evaluated = {name: {"exact_match": 0.0} for name in evaluate.CANDIDATES}
    run = Run({}, {}, {"size_mb": 1.0}, figures["compare"], evaluated, benchmarks)
    (verdict,) = verdicts(replace(NO_GATE, max_tokenized_differently=0), run)
    assert str(verdict) == f"max_tokenized_differently {rows} > 0"
    assert not verdict.passed


# the context


@pytest.fixture(scope="module")
def short_base(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context of 64 tokens."""
    lengths = dict.fromkeys(("max_position_embeddings", "original_max_position_embeddings"), 64)
    chosen = OmegaConf.load(root / "conf/base_model/tiny.yaml")
    changes = {"architecture": lengths | {"sliding_window": None}}
    base_model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BaseModel), chosen, changes))
    assert isinstance(base_model, BaseModel)
    folder = tmp_path_factory.mktemp("short") / "base"
    fetch(base_model, 0, folder)
    return folder


FITTING = [{"q": "q" * (50 - length), "a": f"{number:02}" + "a" * length} for number, length in enumerate(range(2, 44, 2))]


def test_rows_that_fill_the_context_are_answered_as_far_as_it_goes(
    root: Path, short_base: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(short_base, FITTING, source_max_len=64)
    prompt, rows = Prompt.load(PREPARED), read_jsonl(PREPARED / "test.jsonl")
    longest = max(len(prompt_text(row)) for row in rows)
    assert longest + prompt.max_new_tokens > 64  # a longest prompt and a longest answer do not fit
    press(root)
    figures = measured(*evaluate.CANDIDATES)
    assert figures["onnx"]["perplexity"] == pytest.approx(figures["merged"]["perplexity"], rel=1e-4)
    assert figures["base"]["rows"] == figures["merged"]["rows"] == figures["onnx"]["rows"] == len(rows)
    onnx, merged = OnnxModel(ONNX), TorchModel(MERGED, 1, [7])  # a token that it does not choose, so only the context ends it
    lengths: list[int] = []
    generate = merged.model.generate
    monkeypatch.setattr(merged.model, "generate", lambda **options: kept(lengths, generate(**options)))
    texts = [prompt_text(row) for row in rows if len(prompt_text(row)) >= longest - 1] + ["x" * 60]
    merged.answers(texts, prompt.max_new_tokens)
    assert max(lengths) == 64
    for text in texts:
        tokens = list(onnx.generate(onnx.encode_prompt(text), prompt.max_new_tokens))
        assert 1 <= len(tokens) <= min(prompt.max_new_tokens, 64 - len(text))
    for name in benchmark.MODELS:
        benchmark.main(name, benchmark.Config(Benchmark(56, 8, [1], warm_up=0, repetitions=1)))
        with pytest.raises(InputError, match="prompt_tokens 57 and new_tokens 8 do not fit the model's context of 64"):
            benchmark.main(name, benchmark.Config(Benchmark(57, 8, [1], warm_up=0, repetitions=1)))


def kept(lengths: list[int], generated: torch.Tensor) -> torch.Tensor:
    """What was generated, its length noted."""
    lengths.append(generated.shape[1])
    return generated


def test_completions_count_as_far_as_they_were_learned(root: Path, short_base: Path, project: Project) -> None:
    long = [{"q": f"q{number}", "a": f"{number % 10}" * 10 + "b" * 60} for number in range(12)]
    project(short_base, long, source_max_len=40, overlong="truncate")
    rows, prompt = read_jsonl(PREPARED / "train.jsonl"), Prompt.load(PREPARED)
    encoder = load_encoder(BASE)
    lengths = [len(encoder.encode_example(row, 40, True)["input_ids"]) for row in rows]
    assert set(lengths) == {40}
    assert prompt.max_new_tokens == max(40 - len(prompt_text(row)) for row in rows) < 40
    press(root)
    figures = measured("merged", "onnx")
    tests = read_jsonl(PREPARED / "test.jsonl")
    assert figures["compare"]["tokens"] == sum(40 - len(prompt_text(row)) for row in tests)
    assert figures["onnx"]["perplexity"] == pytest.approx(figures["merged"]["perplexity"], rel=1e-4)
    samples = build.samples(recipe(), MERGED, prompt)
    assert {len(tokens) for tokens in samples} == {40}
    chosen = [encoder.encode_example(row, 40, True)["input_ids"] for row in rows]
    assert all(tokens in chosen for tokens in samples)


def test_a_prompt_is_predicted_as_long_as_the_context_has_room(
    root: Path, short_base: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(short_base, FITTING, source_max_len=60)
    press(root)
    capsys.readouterr()
    markup = len(Prompt.load(ONNX).render_prompt({"q": ""}))
    predict.predict(["x" * (63 - markup)], ONNX)  # longer than any row of training, with room for one token
    model = OnnxModel(ONNX)
    assert len(list(model.generate([5] * 63, 8))) == 1
    assert capsys.readouterr().out.count("\n") == 1
    for length in (64, 65, 200):
        with pytest.raises(InputError) as refused:
            predict.predict(["fine", "x" * (length - markup)], ONNX)
        assert str(refused.value) == (
            f"line 2: the prompt has {length} tokens, which leaves no room for an answer in the model's context of 64; "
            "shorten the text"
        )
        with pytest.raises(InputError, match="no room for an answer in the model's context of 64"):
            TorchModel(MERGED).answers(["x" * length], 4)


def test_rows_longer_than_the_context_are_refused_before_the_training(short_base: Path, project: Project) -> None:
    with pytest.raises(InputError, match=r"data\.source_max_len: 65 tokens do not fit the base model's context of 64"):
        project(short_base, FITTING, source_max_len=65)
