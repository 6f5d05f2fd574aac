"""Rows as configurations have them: in a template, as conversations, not at all, or not on this machine yet."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tools.olive.conftest import EXPERIMENT, Import, composed, lines, translated
from tests.tools.olive.documents import BUILDER, DUMMY, FILE, rows, today, whole
from tools.olive.text import answer_column, parts_of

PHI = "<|user|>\n{PHRASE}<|end|>\n<|assistant|>\n{RESPONSE}\n( source : {SOURCE})<|end|>"


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (PHI, "RESPONSE"),
        ("<|system|>\nYou are an assistant.<|end|>\n" + PHI, "RESPONSE"),
        ("<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n({s})", "a"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n{q}<|eot_id|>{a}", "a"),
        ("<|start_header_id|>user<|end_header_id|>\n{q}<|start_header_id|>assistant<|end_header_id|>\n{a}<|eot_id|>{s}", "a"),
        ("<start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n{a} ({s})<end_of_turn>", "a"),
        ("<s>[INST] {q} [/INST] {a} ({s})</s>", "a"),
        ("<|user|>{q1}<|assistant|>{a1}<|user|>{q2}<|assistant|>{a2} [{s}]", "a2"),
        ("<|user|>{q}<|assistant|>Sure: {a}, by {s}", "a"),
        ("USER: {q} ASSISTANT: {a}</s> {s}", "a"),
        ("### User:\n{q}\n### Assistant:\n{a}\n{s}", "a"),
        ("<user>{q}</user><assistant>{a}</assistant> {s}", "a"),
        ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{q}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{a}{s}", "a"),
        ("<|assistant|>Hello<|end|><|user|>{q}<|end|>{a}", "a"),  # the mark of the user comes after that of the assistant
        ("<|system|>You are a helpful assistant: be brief.<|user|>{topic} {q}\nTone: {tone}", "tone"),
        ("### Text: {phrase}\n### The tone is:\n{tone}", "tone"),
        ("### Question: {q}\n### Response: {r}\n### Grade: {grade}", "grade"),
        ("{phrase} {tone}", "tone"),
    ],
)
def test_the_answer_is_what_the_assistants_turn_begins_with(template: str, answer: str) -> None:
    assert answer_column(parts_of(template, "data_configs[0]"), "data_configs[0]") == answer


def test_columns_after_the_answer_are_neither_the_answer_nor_labels(bring: Import, project: Path) -> None:
    document = today()
    document["data_configs"][0]["pre_process_data_config"]["text_template"] = PHI
    text = "".join(
        json.dumps({"PHRASE": f"phrase {number}", "RESPONSE": f"answer {number}", "SOURCE": "ab"[number % 2]}) + "\n"
        for number in range(60)
    )
    (project / "brought" / FILE).write_text(text, encoding="utf-8")
    bring(document, "--strict")
    data = composed().data
    assert (data.text_template, data.completion_column, data.labels) == (PHI, "RESPONSE", None)


def test_a_literal_double_bracket_of_olive_stays_one(bring: Import) -> None:
    document = today()
    document["data_configs"][0]["pre_process_data_config"]["text_template"] = "[[x]] {{y}} {phrase}\n{tone}"
    bring(document)
    assert composed().data.text_template == "[[[[x]]]] {{y}} {phrase}\n{tone}"


def test_a_length_that_is_not_set_is_olives(bring: Import) -> None:
    document = today()
    del document["data_configs"][0]["pre_process_data_config"]["max_seq_len"]
    bring(document)
    assert composed().data.source_max_len == 1024


JINJA = "{% for message in messages %}<|{{ message['role'] }}|>{{ message.content }}{# ${x} #}\n{% endfor %}"


def chat(**fields: Any) -> dict[str, Any]:
    """A configuration whose rows are conversations."""
    document = today()
    document["data_configs"][0]["pre_process_data_config"] = {"max_seq_len": 256, **fields}
    return document


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"chat_template": True}, "messages"),
        ({"chat_template": True, "message_col": "dialogue"}, "dialogue"),
        ({"chat_template": True, "message_col": None, "text_cols": "text"}, "messages"),
        ({"chat_template": True, "text_template": "{phrase} {tone}"}, "messages"),
    ],
)
def test_conversations_are_taken_over(fields: dict[str, Any], column: str, bring: Import, project: Path) -> None:
    assert "conf/experiment/mine.yaml: " in bring(chat(**fields), "--strict")
    translated(chat(**fields), project)
    data = composed().data
    assert (data.format, data.field_messages, data.use_chat_template) == ("messages", column, True)
    assert (data.labels, data.chat_template, data.source_max_len) == (None, None, 256)


def test_a_chat_template_in_the_configuration_becomes_a_file(bring: Import) -> None:
    bring(chat(chat_template=JINJA), "--strict")
    file = Path("conf/experiment/mine.jinja")
    assert (composed().data.chat_template, file.read_text(encoding="utf-8")) == (str(file), JINJA)
    assert composed().data.format == "messages"


def test_a_failed_import_keeps_the_earlier_chat_template(bring: Import) -> None:
    bring(chat(chat_template=JINJA))
    document = chat(chat_template=JINJA + "changed")
    document["passes"]["tune"]["r"] = "many"
    assert "passes.tune.r: " in bring(document)
    assert Path("conf/experiment/mine.jinja").read_text(encoding="utf-8") == JINJA
    assert "passes.tune.r: " in bring(document, name="other")
    assert not list(Path("conf/experiment").glob("other*"))


@pytest.mark.parametrize("template", ["tool_use", 5, ["a"]])
def test_a_chat_template_that_is_only_named_is_a_line(template: Any, bring: Import, project: Path) -> None:
    document = chat(chat_template=template, message_col="dialogue")
    reason = "data.chat_template must be a file in Jinja; the base model's chat template is used"
    assert lines(document, project) == {"data_configs[0].pre_process_data_config.chat_template": reason}
    bring(document)
    assert (composed().data.field_messages, composed().data.chat_template) == ("dialogue", None)


@pytest.mark.parametrize("kind", ["TransformersTokenDummyDataContainer", "DummyDataContainer", "RawDataContainer", "Mine"])
def test_a_configuration_that_only_builds_ignores_rows_that_it_cannot_use(kind: str, project: Path) -> None:
    translation = translated({"passes": {"b": BUILDER}, "data_configs": [DUMMY | {"type": kind}]}, project)
    assert translation.unsupported == []
    assert "data_configs: not used, since no pass trains; conf/config.yaml determines data" in translation.notes
    assert not any(value.key.startswith("data.") for value in translation.values)


def test_a_configuration_that_only_builds_is_imported(bring: Import) -> None:
    assert "conf/experiment/mine.yaml: " in bring({"passes": {"b": BUILDER}, "data_configs": [DUMMY]}, "--strict")
    cfg = composed()
    assert (cfg.adapter.method, cfg.build.precision, cfg.data.files) == ("none", "int4", ["data/raw/tone.jsonl"])


def test_a_configuration_that_only_builds_measures_on_its_rows_where_it_has_some(bring: Import) -> None:
    document = today()
    document["passes"] = {"b": BUILDER}
    document["data_configs"] = [DUMMY, rows(today()) | {"user_script": "mine.py"}]
    assert "conf/experiment/mine.yaml: " in bring(document, "--strict")
    assert composed().data.files == [f"brought/{FILE}"]


def test_generated_rows_for_an_evaluator_are_covered_and_other_rows_are_told(project: Path) -> None:
    document = today()
    held_out = rows(today()) | {
        "name": "held_out",
        "load_dataset_config": {"data_name": "json", "data_files": FILE, "split": "test"},
    }
    document["data_configs"] += [DUMMY, rows(today()) | {"name": "spare"}, held_out]
    document["evaluators"]["scores"]["metrics"][1]["data_config"] = "dummy"
    document["evaluators"]["scores"]["metrics"][0]["data_config"] = "held_out"
    assert {path.partition(".")[0] for path in lines(document, project)} == {"data_configs[3]"}


def test_files_of_their_own_for_validation_and_an_evaluator_are_taken_over(bring: Import, project: Path) -> None:
    document = today()
    for name in ("validation", "test"):
        (project / f"brought/{name}.jsonl").write_text('{"phrase": "p", "tone": "joy"}\n', encoding="utf-8")
        location = {"data_name": "json", "data_files": [f"{name}.jsonl"], "split": "train"}
        batch = {"batch_size": 4}  # changes nothing
        document["data_configs"].append(
            rows(today()) | {"name": name, "load_dataset_config": location, "dataloader_config": batch}
        )
    document["passes"]["tune"]["eval_data_config"] = "validation"
    document["evaluators"]["scores"]["metrics"][0]["data_config"] = "test"
    output = bring(document, "--strict")
    assert "data.test_size: a share" not in output
    data = composed().data
    assert (data.validation_files, data.test_files) == (["brought/validation.jsonl"], ["brought/test.jsonl"])
    document["data_configs"][2]["pre_process_data_config"] = {"text_template": "{tone} {phrase}", "max_seq_len": 256}
    reason = "all rows are rendered as those that are trained on"
    assert lines(document, project) == {"data_configs[2].pre_process_data_config.text_template": reason}


def test_rows_that_are_not_on_this_machine_are_a_warning_that_says_where_they_go(bring: Import, project: Path) -> None:
    (project / "brought" / FILE).unlink()
    output = bring(whole(), "--strict")
    assert f"brought/{FILE}: not on this machine; put the rows there, or set data.files in the experiment\n" in output
    data = composed().data
    assert (data.files, data.completion_column, data.labels) == ([f"brought/{FILE}"], "tone", None)
    assert "# the rows are not on this machine; list the labels of a classification" in EXPERIMENT.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a/b/c", "brought/a/b/c"),
        ("models/phi3", "brought/models/phi3"),
        ("./phi3", "brought/phi3"),
        ("../models/phi3", "models/phi3"),
        ("..\\models\\phi3", "models/phi3"),
        ("C:\\Users\\me\\phi3", "brought/phi3"),
    ],
)
def test_a_model_that_is_not_on_this_machine_is_a_warning_that_says_where_it_goes(name: str, place: str, bring: Import) -> None:
    output = bring({"input_model": {"type": "HfModel", "model_path": name}}, "--strict")
    assert f"{place}: not on this machine; put the model's folder there, or set base_model.path in the experiment\n" in output
    assert (composed().base_model.source, composed().base_model.path) == ("folder", place)


def test_a_path_of_windows_finds_the_file(bring: Import) -> None:
    document = today()
    document["data_configs"][0]["load_dataset_config"]["data_files"] = FILE.replace("/", "\\")
    output = bring(document, "--strict")
    assert "not on this machine" not in output
    assert (composed().data.files, len(composed().data.labels)) == ([f"brought/{FILE}"], 4)


def test_each_of_several_files_that_are_missing_is_named(bring: Import, project: Path) -> None:
    document = today()
    names = ["gone.jsonl", FILE, "gone/*.jsonl", "dataset/*.json", "https://host.example/rows.jsonl"]
    document["data_configs"][0]["load_dataset_config"]["data_files"] = names
    output = bring(document, "--strict")
    missing = [line.partition(":")[0] for line in output.splitlines() if "not on this machine" in line]
    assert missing == ["brought/gone.jsonl", "brought/gone/*.jsonl"]
    assert composed().data.files == [name if "://" in name else f"brought/{name}" for name in names]
