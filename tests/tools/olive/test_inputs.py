"""Configurations as people have them: with what changes nothing, with newer passes, and without the files that they name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from tests.tools.olive.conftest import Import
from tests.tools.olive.documents import FILE, finetuned, today, whole
from tools.olive.document import leaves
from tools.olive.text import answer_column, parts_of
from tools.olive.translation import Translation, translate
from tunepress.core.params import compose_conf

EXPERIMENT = Path("conf/experiment/mine.yaml")
BUILDER = {"type": "ModelBuilder", "precision": "int4"}
DUMMY: dict[str, Any] = {
    "name": "dummy",
    "type": "TransformersTokenDummyDataContainer",
    "load_dataset_config": {"seq_len": 1, "past_seq_len": 8, "model_framework": "onnx"},
}


def composed() -> Any:
    return OmegaConf.create(compose_conf(["+experiment=mine"]))


def lines(document: dict[str, Any], project: Path) -> dict[str, str]:
    """The text of each line of the table that is not supported, by the field's path."""
    return {field.leaf.path: field.mapping.text for field in translated(document, project).unsupported}


def translated(document: dict[str, Any], project: Path) -> Translation:
    translation = translate(document, project / "brought")
    paths = sorted(field.leaf.path for field in translation.fields)
    assert paths == sorted(leaf.path for leaf in leaves(document, "")), "each field has one line"
    return translation


def rows(document: dict[str, Any]) -> dict[str, Any]:
    """The data configuration of `today`."""
    (config,) = document["data_configs"]
    return dict[str, Any](config)


# --- what changes nothing


def test_what_olive_finetune_writes_is_imported(bring: Import, project: Path) -> None:
    assert "conf/experiment/mine.yaml: " in bring(finetuned(), "--strict")
    translated(finetuned(), project)
    cfg = composed()
    assert (cfg.adapter.method, cfg.adapter.r, cfg.adapter.lora_alpha, cfg.train.bf16) == ("lora", 64, 16, True)
    assert (cfg.data.source_max_len, cfg.data.max_samples, cfg.data.use_chat_template) == (512, 256, False)
    assert cfg.train.attn_implementation == "eager"


@pytest.mark.parametrize("empty", [None, {}, [], ""])
@pytest.mark.parametrize(
    "place",
    [
        "passes.tune.modules_to_save",
        "passes.tune.made_up",
        "passes.merge.config",
        "passes.build.search",
        "systems.local.properties",
        "data_configs.0.post_process_data_config",
        "data_configs.0.dataloader_config",
        "data_configs.0.pre_process_data_config.input_cols",
        "data_configs.0.load_dataset_config.data_dir",
        "input_model.io_config",
        "input_model.model_attributes",
        "evaluators.scores.options",
        "engine",
        "builds",
        "pass_flows",
        "auto_optimizer_config",
        "packaging_config",
        "azureml_client",
        "made_up",
    ],
)
def test_an_empty_value_changes_nothing(place: str, empty: Any, project: Path) -> None:
    document = today()
    *levels, name = place.split(".")
    part: Any = document
    for level in levels:
        part = part[int(level)] if level.isdigit() else part[level]
    part[name] = empty
    expected = {value.key: value.value for value in translate(today(), project / "brought").values}
    translation = translated(document, project)
    assert translation.unsupported == []
    assert {value.key: value.value for value in translation.values} == expected


@pytest.mark.parametrize("name", ["input_model", "data_configs", "passes", "systems", "evaluators", "engine"])
@pytest.mark.parametrize("empty", [None, {}, []])
def test_an_empty_section_is_one_that_is_missing(name: str, empty: Any, bring: Import) -> None:
    document = whole() | {name: empty}
    if name == "systems":
        document.pop("engine")
    output = bring(document, "--strict")
    assert "conf/experiment/mine.yaml: " in output, output
    assert (f"{name}: missing, conf/config.yaml determines" in output) == (name in ("input_model", "data_configs", "passes"))


@pytest.mark.parametrize(
    "fields",
    [
        {"dataloader_config": {"type": "no_auto_batch_dataloader", "params": {"batch_size": 4, "drop_last": True}}},
        {"post_process_data_config": {"type": "text_generatation_post_process", "params": {"k": 1}}},
        {"pre_process_data_config": {"text_template": "{phrase} {tone}", "add_special_tokens": True}},
        {"pre_process_data_config": {"text_template": "{phrase} {tone}", "chat_template": None, "message_col": "messages"}},
        {"pre_process_data_config": {"text_template": "{phrase} {tone}", "chat_template": False, "drop_short_sequences": False}},
    ],
)
def test_a_switch_of_the_rows_that_changes_nothing_is_covered(fields: dict[str, Any], project: Path) -> None:
    document = today()
    document["data_configs"] = [rows(document) | fields]
    assert lines(document, project) == {}


def test_a_conversion_that_the_builder_makes_needless_is_covered(bring: Import) -> None:
    passes = {
        "c": {"type": "OnnxConversion", "target_opset": 17, "torch_dtype": "float32", "save_metadata_for_token_generation": True},
        "o": {"type": "OrtTransformersOptimization", "model_type": "gpt2", "opt_level": 0, "float16": False},
        "q": {"type": "OnnxMatMul4Quantizer", "block_size": 64, "is_symmetric": True, "accuracy_level": 4},
    }
    assert "conf/experiment/mine.yaml: " in bring({"passes": passes}, "--strict")
    build = composed().build
    assert (build.precision, build.block_size, build.is_symmetric, build.accuracy_level) == ("int4", 64, True, 4)


# --- the answer


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


# --- conversations


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


# --- a configuration that only builds


@pytest.mark.parametrize("kind", ["TransformersTokenDummyDataContainer", "DummyDataContainer", "RawDataContainer", "Mine"])
def test_a_configuration_that_only_builds_ignores_rows_that_it_cannot_use(kind: str, bring: Import, project: Path) -> None:
    document = {"passes": {"b": BUILDER}, "data_configs": [DUMMY | {"type": kind}]}
    output = bring(document, "--strict")
    assert "data_configs: not used, since no pass trains; conf/config.yaml determines data" in output
    translated(document, project)
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
    document["data_configs"] += [DUMMY, rows(today()) | {"name": "spare"}, rows(today()) | {"name": "held_out"}]
    document["evaluators"]["scores"]["metrics"][1]["data_config"] = "dummy"
    document["evaluators"]["scores"]["metrics"][0]["data_config"] = "held_out"
    assert {path.partition(".")[0] for path in lines(document, project)} == {"data_configs[3]"}


# --- passes and builds that are newer than this project


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("ConvertHfToGGUF", "models/merged is a folder that llama.cpp's converter accepts"),
        ("MobiusModelBuilder", "the stage build makes the model, with onnxruntime-genai's builder"),
        ("MobiusBuilder", "the stage build makes the model, with onnxruntime-genai's builder"),
        ("RyzenGenerateModelLLM", "the model is only for onnxruntime-genai and its execution providers"),
        ("QNNConversion", "the model is only for onnxruntime-genai and its execution providers"),
        ("SparseGPT", "the stage build quantizes the weights, see build.algo_config"),
        ("Lora2", "not a pass that is known here; is it LoRA?"),
        ("ModelBuildr", "not a pass that is known here; is it ModelBuilder?"),
        ("Whatever", "no stage does this"),
    ],
)
def test_a_pass_that_is_not_known_is_a_line_and_fatal_only_under_strict(
    kind: str, reason: str, bring: Import, project: Path
) -> None:
    for others in ({}, {"t": {"type": "LoRA", "r": 8}}):
        document: dict[str, Any] = {"passes": {**others, "a": {"type": kind, "option": 1}}}
        assert lines(document, project) == {"passes.a.type": reason, "passes.a.option": "of a pass that is not supported"}
        output = bring(document)
        assert "2 not supported; run" in output
        assert composed().adapter.method == ("lora" if others else "none")
        EXPERIMENT.unlink()
        assert bring(document, "--strict").endswith("nothing is written (--strict): passes.a.type, passes.a.option")
        assert not EXPERIMENT.exists()


def test_another_builder_for_the_same_runtime_still_ends_in_the_stage_build(bring: Import) -> None:
    for kind, target in (("MobiusBuilder", ""), ("ConvertHfToGGUF", " merge")):
        output = bring({"passes": {"t": {"type": "LoRA"}, "b": {"type": kind}}})
        assert output.endswith(f"run `dvc exp run -S +experiment=mine{target}`\n")


def test_the_first_name_of_modelbuilder_is_modelbuilder(bring: Import) -> None:
    bring({"passes": {"b": {"type": "GenAIModelExporter", "precision": "int4"}}}, "--strict")
    assert composed().build.precision == "int4"


BUILDS: dict[str, Any] = {
    "passes": {
        "tune": {"type": "LoRA", "r": 8},
        "quick": {"type": "LoRA", "r": 4},
        "build": BUILDER,
        "half": {"type": "ModelBuilder", "precision": "fp32"},
    },
    "systems": {
        "cpu": {"type": "LocalSystem", "accelerators": [{"device": "cpu"}]},
        "gpu": {"type": "LocalSystem", "accelerators": [{"device": "gpu"}]},
    },
    "builds": {"_default": {"host": "cpu", "target": "cpu"}, "small": {"pipeline": ["tune", "build"], "output_dir": "small"}},
}


def test_a_build_selects_its_passes_and_machine(bring: Import, project: Path) -> None:
    assert "conf/experiment/mine.yaml: " in bring(BUILDS, "--strict")
    translated(BUILDS, project)
    cfg = composed()
    assert (cfg.adapter.r, cfg.build.precision, cfg.build.execution_provider) == (8, "int4", "cpu")
    bring(BUILDS | {"builds": {"_default": {"target": "cpu"}, "small": {"pipeline": ["quick", "build"], "target": "gpu"}}})
    assert (composed().adapter.r, composed().build.execution_provider) == (4, "cuda")


def test_of_several_builds_the_first_is_imported_and_the_others_are_lines(bring: Import, project: Path) -> None:
    builds = BUILDS["builds"] | {"other": {"pipeline": ["quick", "half"], "components": ["text"]}}
    document = BUILDS | {"builds": builds, "max_concurrent_builds": 1}
    reason = "a run makes one model, that of builds.small; import again without that for another"
    assert lines(document, project) == dict.fromkeys(("builds.other.pipeline", "builds.other.components"), reason)
    bring(document)
    assert composed().adapter.r == 8
    EXPERIMENT.unlink()
    assert "nothing is written (--strict): builds.other.pipeline" in bring(document, "--strict")


def test_a_part_of_a_model_in_a_build_is_a_line(project: Path) -> None:
    document = BUILDS | {"builds": {"small": {"pipeline": ["tune", "build"], "components": ["text"]}}}
    assert lines(document, project) == {"builds.small.components": "the whole model is built"}


def test_the_machine_of_the_whole_workflow_is_that_of_the_job(bring: Import) -> None:
    document = finetuned() | {"workflow_host": "aml"}
    document["systems"]["aml"] = {"type": "AzureML", "aml_compute": "cluster", "accelerators": [{"device": "GPU"}]}
    bring(document, "--strict")
    assert 'ARGS="environment.lock=cuda13 compute=cluster"' in EXPERIMENT.read_text(encoding="utf-8").replace(
        "compute=cluster environment.lock=cuda13", "environment.lock=cuda13 compute=cluster"
    )


# --- YAML


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
@pytest.mark.parametrize("document", [whole(), today(), finetuned()], ids=["whole", "today", "finetuned"])
def test_yaml_is_read_like_json(document: dict[str, Any], suffix: str, bring: Import) -> None:
    bring(document, "--strict")
    expected = EXPERIMENT.read_text(encoding="utf-8")
    EXPERIMENT.unlink()
    output = bring(document, "--strict", suffix=suffix)
    assert "conf/experiment/mine.yaml: " in output, output
    assert EXPERIMENT.read_text(encoding="utf-8") == expected.replace("olive-config.json", f"olive-config{suffix}")


def test_the_words_and_numbers_of_yaml_mean_what_olive_makes_of_them(bring: Import) -> None:
    arguments = "{learning_rate: 1e-4, eval_strategy: no, save_strategy: off, max_steps: 5, gradient_checkpointing: yes}"
    bring(f"passes:\n  lora: {{type: LoRA, training_args: {arguments}}} # mine\nworkflow_id: 2026-01-02\n", suffix=".yaml")
    train = composed().train
    assert (train.learning_rate, train.eval_strategy, train.save_strategy) == (1e-4, "no", "no")
    assert (train.max_steps, train.gradient_checkpointing) == (5, True)


def test_yaml_that_refers_to_itself_and_merges_is_read(bring: Import) -> None:
    document = yaml.safe_dump(today()).replace("max_steps: 4", "<<: &more {max_steps: 9}")
    bring(document, suffix=".yaml")
    assert composed().train.max_steps == 9


# --- what is not on this machine


def test_rows_that_are_not_on_this_machine_are_a_warning_that_says_where_they_go(bring: Import, project: Path) -> None:
    (project / "brought" / FILE).unlink()
    output = bring(whole(), "--strict")
    assert f"brought/{FILE}: not on this machine; put the rows there, or set data.files in the experiment\n" in output
    data = composed().data
    assert (data.files, data.completion_column, data.labels) == ([f"brought/{FILE}"], "tone", None)
    assert "# the rows are not on this machine; list the labels of a classification" in EXPERIMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a/b/c", "brought/a/b/c"),
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
