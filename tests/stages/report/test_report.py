"""report: the same bytes for the same run, figures for DVC to compare, and a model card whose snippet runs."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yaml import safe_load  # type: ignore[import-untyped]

from stages.build.adapters.export import add_adapter_inputs
from stages.build.adapters.lora import load
from stages.build.stage import build
from stages.report import stage as report
from stages.report import tables
from stages.report.examples import columns_of
from stages.report.figures import Run
from tests.stages.random_adapter import write_random_adapter
from tests.stages.recipes import recipe
from tests.stages.run_files import TONE, choices, new_run, predictions, sections
from tunepress.core.environment import IMAGE
from tunepress.core.errors import InputError
from tunepress.core.files import write_csv, write_json, write_jsonl
from tunepress.core.paths import ADAPTER_FILE, METRICS, MODEL_CARD, ONNX, PREDICTIONS, PREPARED, REPORT
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.prompt import Prompt

INPUTS = (
    "data/prepared/prompt.json", "metrics/benchmark/merged.json", "metrics/benchmark/onnx.json", "metrics/build.json",
    "metrics/compare.json", "metrics/evaluate/base.json", "metrics/prepare.json", "metrics/train.json",
    "predictions/changed.csv", "predictions/merged.csv",
)  # fmt: skip


@pytest.fixture(params=[True, False], ids=["labels", "free text"])
def labels(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def project(tmp_path: Path, labels: bool, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which a run has ended."""
    new_run(tmp_path / "project", labels)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def made() -> dict[str, str]:
    """The hashes of what the stage writes."""
    files = (REPORT / "index.html", MODEL_CARD, METRICS / "summary.json", METRICS / "speed.json")
    return {file.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def metrics(name: str) -> Any:
    return json.loads((METRICS / f"{name}.json").read_text(encoding="utf-8"))


def page_of(folder: Path) -> str:
    return (folder / REPORT / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes_in_another_process_and_folder(project: Path, labels: bool, root: Path) -> None:
    report.main(sections(root, labels))
    first = made()
    for path in first:
        Path(path).unlink()
    other = project.rename(project.parent / "another")
    shutil.copy(root / "params.yaml", other)
    command = [sys.executable, "-m", "stages.report", *choices(labels)]
    environment = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "7", "PATH": "", "HOME": str(project.parent), "COLUMNS": "40"}
    done = subprocess.run(command, cwd=other, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    project.symlink_to(other)
    assert made() == first


def test_nothing_of_this_machine_and_no_address_is_in_it(project: Path, labels: bool, root: Path) -> None:
    report.main(sections(root, labels))
    html = page_of(project)
    assert str(project) not in html
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML, which nobody asks for
    assert not re.search(r"<(script|img|iframe|object|link(?! rel=\"icon\" href=\"data:,\"))|@import|url\((?!#)", html)


def test_several_datasets_are_shown_by_name(project: Path, labels: bool, root: Path) -> None:
    score = "accuracy" if labels else "exact_match"
    for name, value in (("base", 0.125), ("merged", 0.625), ("onnx", 0.375)):
        by_dataset = {"mail & more": {"rows": 8, score: value, f"{score}_low": 0.1, f"{score}_high": 0.9}}
        write_json(METRICS / "evaluate" / f"{name}.json", metrics(f"evaluate/{name}") | {"datasets": by_dataset})
    run = Run.read()
    assert tables.by_dataset(run).rows == [["mail & more", "0.125", "0.625", "0.375", "8"]]
    assert "datasets" not in run.all_names
    report.main(sections(root, labels))
    assert "mail &amp; more" in page_of(project)


def test_three_training_rows_are_shown_with_the_learned_part_marked(project: Path, labels: bool, root: Path) -> None:
    turns = [{"text": text, "train": number % 2 == 1} for number, text in enumerate(("<b>&\n", "one", "{x}\n", "two"))]
    write_jsonl(PREPARED / "train.jsonl", [{"source": "row 1", "segments": turns}] * 5)
    report.main(sections(root, labels))
    shown = re.findall(r'<pre class="learned">(.*?)</pre>', page_of(project), flags=re.DOTALL)
    assert shown == ["&lt;b&gt;&amp;\n<mark>one</mark>{x}\n<mark>two</mark>"] * 3


def test_the_summary_and_the_speed_are_those_that_dvc_compares(project: Path, labels: bool, root: Path) -> None:
    report.main(sections(root, labels))
    score = "accuracy" if labels else "exact_match"
    base, merged, onnx = (metrics(f"evaluate/{name}") for name in ("base", "merged", "onnx"))
    summary = {
        score: onnx[score],
        "drop": round(merged[score] - onnx[score], 4),
        "base": base["likelihood_accuracy" if labels else score],
        "kl": metrics("compare")["mean_kl"],
        "size_mb": 117.15,
        "gate": "max_size_mb 117.15 > 100" if labels else "passed",
        "baseline": max(baseline[score] for baseline in metrics("baselines").values()),
    }
    assert summary["base"] == (0.25 if labels else 0.0)
    assert metrics("summary") == summary | ({} if labels else {"token_f1": onnx["token_f1"]})
    assert metrics("speed") == {"tokens_s": 81.1}


def test_a_run_in_an_image_tells_which_where_figures_vary_and_nowhere_else(
    project: Path, labels: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.main(sections(root, labels))
    outside = metrics("speed"), metrics("summary"), page_of(project)
    digest = "sha256:" + "0123456789abcdef" * 4
    monkeypatch.setenv(IMAGE, f"tunepress-train:cpu@{digest}")
    report.main(sections(root, labels))
    assert metrics("speed") == outside[0] | {"image": "tunepress-train:cpu@0123456789ab"}
    assert metrics("summary") == outside[1]
    assert digest in page_of(project)
    assert digest not in outside[2]


def test_a_missing_input_is_named_in_one_line_and_the_earlier_report_stays(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    report.main(sections(root))
    before = made()
    for missing in map(Path, INPUTS):
        missing.rename("aside")
        with pytest.raises(InputError) as refused:
            report.main(sections(root))
        Path("aside").rename(missing)
        assert str(refused.value).startswith(f"{missing}: not found;")
        assert "\n" not in str(refused.value)
        assert made() == before


def test_labels_and_texts_of_any_kind_are_shown_as_they_are(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {"joy": "$a^2$ & <b>", "sadness": "$", "fear": "雨 🎉", "surprise": "a label of very many words, as some are"}
    new_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("base", "merged", "onnx"):
        rows = [{key: renamed.get(value, value) for key, value in row.items()} for row in predictions(name, labels=True)]
        rows[0]["prompt"] = TONE.render_prompt({"phrase": "</p><script>alert(1)</script> $x$"})
        write_csv(PREDICTIONS / f"{name}.csv", rows, list(rows[0]))
        figures = metrics(f"evaluate/{name}")
        figures["per_class"] = {renamed[label]: scores for label, scores in figures["per_class"].items()}
        write_json(METRICS / "evaluate" / f"{name}.json", figures)
    Prompt(TONE.prompt, TONE.completion, tuple(renamed.values()), 256, 4).save(PREPARED)
    report.main(sections(root))
    html = page_of(tmp_path)
    assert "<script>" not in html
    assert "&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt; $x$" in html
    assert html.count("$a^2$ &amp; &lt;b&gt;") >= 2
    assert "雨 🎉" in html


def test_runs_without_curves_or_changed_answers_have_a_report_too(tmp_path: Path, root: Path) -> None:
    new_run(tmp_path)
    shutil.rmtree(tmp_path / "metrics/loss")
    header = "source,prompt,expected,merged,onnx\n"
    (tmp_path / PREDICTIONS / "changed.csv").write_text(header, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        report.main(sections(root))
    assert "none was logged" in page_of(tmp_path)
    assert "<p>None.</p>" in page_of(tmp_path)


# the model card


def test_the_model_card_says_what_it_must(project: Path, labels: bool, root: Path) -> None:
    report.main(sections(root, labels))
    card = MODEL_CARD.read_text(encoding="utf-8")
    head, text = card.removeprefix("---\n").split("\n---\n", 1)
    metadata = safe_load(head)
    ((named, results),) = ((entry["name"], entry["results"]) for entry in metadata.pop("model-index"))
    assert named == "SmolLM2-135M-Instruct fine-tuned to int4"
    (result,) = results
    assert result["task"]["type"] == ("text-classification" if labels else "text-generation")
    assert result["dataset"] == {"name": "data/raw/tone.jsonl", "type": "custom", "split": "test"}
    shipped = metrics("evaluate/onnx")
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        name: shipped[name]
        for name in (("accuracy", "macro_f1", "invalid_rate") if labels else ("exact_match", "token_f1", "rouge_l", "perplexity"))
    }
    assert metadata == {
        "license": "apache-2.0",
        "library_name": "onnxruntime-genai",
        "base_model": "SmolLM2-135M-Instruct",
        "pipeline_tag": "text-generation",
    }
    assert re.findall("^##? .*", text, flags=re.MULTILINE) == [
        "# SmolLM2-135M-Instruct fine-tuned to int4", "## How to run it", "## Prompt", "## How well it works",
        "## What it was trained on", "## How it was made",
    ]  # fmt: skip
    prompt = Prompt.load(PREPARED).prompt
    assert f"```\n{prompt}\n```" in text
    score = "accuracy" if labels else "exact match"
    figures = [metrics(f"evaluate/{name}")[score.replace(" ", "_")] for name in ("base", "merged", "onnx")]
    assert (f"| accuracy of the answers | {' | '.join(f'{value:.3f}' for value in figures)} |" in text) == labels
    figures[0] = metrics("summary")["base"]
    assert f"| {score} | {' | '.join(f'{value:.3f}' for value in figures)} |" in text
    assert "`python -m tools.cli.verify onnx`" in text
    assert "900 rows of data/raw/tone.jsonl" in text
    assert '"train.learning_rate": 0.001' in text
    assert ("| max_size_mb | 100 | 117.15 | broken |" in text) == labels


def test_the_model_card_publishes_no_row(project: Path, labels: bool, root: Path) -> None:
    report.main(sections(root, labels))
    card, prompt = MODEL_CARD.read_text(encoding="utf-8"), Prompt.load(PREPARED)
    texts = [text for row in predictions("onnx", labels) for text in columns_of(row["prompt"], prompt).values()]
    long = [text for text in texts if len(text) > 10]
    assert len(long) == 240
    assert not [text for text in long if repr(text)[1:-1] in card or text in card]
    assert f"row = {placeholder(prompt)}  # put your own text here" in card


def test_the_model_card_of_a_base_model_says_that_nothing_was_trained(project: Path, labels: bool, root: Path) -> None:
    write_json(METRICS / "train.json", {"parameters": 134515008, "trainable_parameters": 0, "steps": 0})
    report.main(sections(root, labels))
    card = MODEL_CARD.read_text(encoding="utf-8")
    assert "Nothing was trained: SmolLM2-135M-Instruct was taken as it is\nand built for cpu in int4." in card
    assert "The model is prompted with this text" in card
    assert "## What it was trained on" not in card


@pytest.mark.parametrize(
    ("template", "row"),
    [
        (TONE.prompt, {"phrase": 'What a "day"! It\'s {fine} \\n'}),
        ("```\n{{{First Name}}}'s {a.b[0]}\n```\n", {"First Name": "Zoë\n```\n", "a.b[0]": "🎉"}),
    ],
)
def test_the_model_cards_snippet_runs_and_says_what_the_model_says(
    template: str, row: dict[str, str], tiny_phi3: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt(template, "{answer}", None, source_max_len=64, max_new_tokens=8)
    monkeypatch.chdir(new_run_of(prompt, row, tmp_path))
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, ONNX)
    report.main(sections(root, labels=False))
    assert ran_snippet() == OnnxModel(ONNX).answer(prompt.render_prompt(placeholder(prompt)), 8) + "\n"


def test_the_model_cards_snippet_ends_where_the_context_does(
    tiny_phi3: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt("Text: {phrase}\n", "{answer}", None, source_max_len=64, max_new_tokens=10**6)
    monkeypatch.chdir(new_run_of(prompt, {"phrase": "What a day!"}, tmp_path))
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, ONNX)
    report.main(sections(root, labels=False))
    assert ran_snippet()


def test_the_model_cards_snippet_activates_an_adapter_that_lies_apart(
    tiny_phi3: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, prompt = {"phrase": "What a day!"}, Prompt("Text: {phrase}\n", "{answer}", None, source_max_len=64, max_new_tokens=8)
    monkeypatch.chdir(new_run_of(prompt, row, tmp_path))
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, ONNX)
    rendered = prompt.render_prompt(placeholder(prompt))
    without = OnnxModel(ONNX).answer(rendered, 8) + "\n"
    adapter = load(write_random_adapter(tiny_phi3, tmp_path / "random"))
    add_adapter_inputs(adapter, ONNX / "model.onnx", ONNX / ADAPTER_FILE)
    report.main(sections(root, labels=False, overrides=("build.adapters=separate", "build.algo_config=k_quant_mixed")))
    assert ran_snippet() == OnnxModel(ONNX).answer(rendered, 8) + "\n" != without


def new_run_of(prompt: Prompt, row: dict[str, str], folder: Path) -> Path:
    """Writes a run whose prompts are all of `row`, without its model."""
    new_run(folder, labels=False)
    shutil.rmtree(folder / ONNX)
    prompt.save(folder / PREPARED)
    for name in ("base", "merged", "onnx"):
        rows = [prediction | {"prompt": prompt.render_prompt(row)} for prediction in predictions(name, labels=False)]
        write_csv(folder / PREDICTIONS / f"{name}.csv", rows, list(rows[0]))
    return folder


def test_json_is_reported_field_by_field_and_the_cards_snippet_keeps_to_the_grammar(
    tiny_phi3: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt("Text: {phrase}\n", "{answer}", None, 64, 12, json_schema={"enum": ["yes", "no"]})
    monkeypatch.chdir(new_run_of(prompt, {"phrase": "What a day!"}, tmp_path))
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, ONNX)
    replace(prompt, guidance='start: "yes" | "no"').save(ONNX)
    fields = {"/city": 0.5, "/express": 0.9875}
    for name in ("base", "merged", "onnx"):
        unguided = {"schema_valid_rate": 0.25, "exact_match": 0.125}
        measured = {"schema_valid_rate": 0.975, "field_accuracy": 0.7438, "fields": fields, "unguided": unguided}
        write_json(METRICS / "evaluate" / f"{name}.json", metrics(f"evaluate/{name}") | measured)
    speeds = {"guidance": {"free_seconds": 0.412, "guided_seconds": 0.437, "answers": 32}}
    write_json(METRICS / "benchmark/onnx.json", metrics("benchmark/onnx") | speeds)
    report.main(sections(root, labels=False, overrides=("evaluate.guidance=schema", "data.json_schema=schema.json")))
    rows = {row[0]: row[1:] for row in tables.json_fields(Run.read()).rows}
    assert rows["/city"] == ["0.500"] * 3
    assert rows["schema valid rate without guidance"] == ["0.250"] * 3
    assert rows["seconds an answer"][2] == "0.437"
    assert "How much of the JSON is right" in page_of(tmp_path)
    assert metrics("summary")["field_accuracy"] == 0.7438
    assert Run.read().invalid_rate == pytest.approx(0.025)
    assert ran_snippet() in ("yes\n", "no\n")


def test_a_temperature_that_changes_nothing_has_no_plot(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    report.main(sections(root))
    assert "After it" in page_of(tmp_path)
    for name in ("merged", "onnx"):
        write_json(METRICS / "evaluate" / f"{name}.json", metrics(f"evaluate/{name}") | {"temperature": 1.0})
    report.main(sections(root))
    assert "After it" not in page_of(tmp_path)
    assert "Is it as right as it is sure?" in page_of(tmp_path)


CHAT = Prompt(None, None, None, 400, 8, chat_template="{% for message in messages %}`<{{ message.content }}>{% endfor %}<a>")


def test_the_model_card_of_conversations_has_the_chat_template_and_a_snippet_that_runs(
    tiny_phi3: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(new_run_of(CHAT, {}, tmp_path))
    build(recipe(block_size=32, accuracy_level=4, is_symmetric=True), tiny_phi3, ONNX)
    (ONNX / "chat_template.jinja").write_text(str(CHAT.chat_template), encoding="utf-8")
    report.main(sections(root, labels=False))
    card = MODEL_CARD.read_text(encoding="utf-8")
    assert "trained on conversations that this chat template renders. It\nanswers greedily in at most 8 tokens.\n" in card
    assert f"\n```\n{CHAT.chat_template}\n```\n" in card
    assert ran_snippet() == OnnxModel(ONNX).answer("`<your question><a>", 8) + "\n"


def placeholder(prompt: Prompt) -> dict[str, str]:
    """The row that the model card asks about."""
    return {name: f"your {name}" for name in prompt.columns}


def ran_snippet() -> str:
    """What the model card's snippet prints."""
    snippet = re.search(r"^(`{3,})python\n(.*?)\n\1$", MODEL_CARD.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert snippet
    command = [sys.executable, "-X", "utf8", "-c", snippet.group(2)]
    done = subprocess.run(command, cwd=MODEL_CARD.parent, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
