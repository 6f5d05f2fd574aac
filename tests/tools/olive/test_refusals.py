"""What cannot be imported ends in one line that names the place and the cure, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from tests.tools.olive.conftest import Import
from tests.tools.olive.documents import BLOCKS, FILE, STORED, rows_in_components, whole

EXPERIMENT = Path("conf/experiment/mine.yaml")


def changed(place: str, value: Any) -> dict[str, Any]:
    """The whole configuration with another value at a place; None takes it away."""
    document = whole()
    *levels, name = place.split(".")
    part: Any = document
    for level in levels:
        part = part[int(level)] if level.isdigit() else part[level]
    if value is None:
        del part[name]
    else:
        part[name] = value
    return document


MODEL = "input_model.config.hf_config.model_name"
LOAD = "data_configs.0.load_dataset_config.params"
TEXTS = "data_configs.0.pre_process_data_config.params"
CASES: dict[str, tuple[Any, str]] = {
    "broken JSON": ('{"passes": {\n  "lora": ', "line 2: not JSON (Expecting value)"),
    "a comment": ('{\n  // of mine\n  "passes": {}}', "line 2: not JSON (JSON has no comments, remove it)"),
    "a comment behind a value": ('{"a": 1, /* one */ "b": 2}', "line 1: not JSON (JSON has no comments, remove it)"),
    "a number that JSON does not have": ('{"a": NaN}', "not JSON (NaN is no number of JSON)"),
    "a number without end": (f'{{"a": {"9" * 5000}}}', "not JSON (Exceeds the limit (4300 digits)"),
    "no object": ("[1]", "an Olive configuration is a JSON object, not list"),
    "a key twice": ('{"host": "a", "host": "b"}', "the key 'host' stands twice"),
    "a section of another type": ({"passes": ["lora"]}, "passes: wants an object, not list"),
    "rows that are not there": (changed(f"{LOAD}.data_files", "gone.json"), "no such file brought/gone.json (data_files)"),
    "no rows": (changed(f"{LOAD}.data_files", None), "data_configs[0]: names no rows; set data_files"),
    "rows of another kind": (changed("data_configs.0.type", "DummyDataContainer"), "data_configs[0].type: DummyDataContainer"),
    "rows at an address with a secret": (
        changed(f"{LOAD}.data_files", "https://host.example/rows.jsonl?sig=hush"),
        "data_files: https://host.example/rows.jsonl: the address contains a secret",
    ),
    "rows that stand in the pass": (
        changed("passes.lora.config.train_data_config", {"name": "rows"}),
        "passes.lora.config.train_data_config.name: rows that stand in the pass; put them into data_configs",
    ),
    "a template that is no text": (changed(f"{TEXTS}.text_template", 5), "data_configs[0]: text_template: wants a text, not int"),
    "a template with half a column": (changed(f"{TEXTS}.text_template", "{"), "a brace that is none is written twice"),
    "a template of one column": (changed(f"{TEXTS}.text_template", "{tone}"), "no text_template of two columns or more"),
    "a reference in the template": (changed(f"{TEXTS}.text_template", "It costs ${phrase}, {tone}"), "text_template: holds ${"),
    "a reference in another text": (
        changed("passes.lora.config.training_args.attn_implementation", "${oc.env:HOME}"),
        "passes.lora.config.training_args.attn_implementation: holds ${",
    ),
    "an unknown data configuration": (
        changed("data_configs", [rows_in_components(FILE) | {"name": name} for name in "ab"]),
        "train_data_config: dataset_default_train is none of data_configs (a, b)",
    ),
    "a model that is not there": (changed(MODEL, "a/b/c"), "no folder brought/a/b/c"),
    "a model of another type": (changed("input_model.type", "ONNXModel"), "input_model.type: ONNXModel cannot be fine-tuned"),
    "no model": (changed(MODEL, None), "input_model: names no model"),
    "a model in Azure without version": (
        {"input_model": {"type": "HfModel", "model_path": {"type": "azureml_model", "name": "mine"}}},
        "a model in Azure wants name and version",
    ),
    "an unknown pass": (changed("passes.lora.type", "Lora2"), "passes.lora.type: 'Lora2' is no pass of Olive's"),
    "only passes of other kinds": ({"passes": {"a": {"type": "SparseGPT"}}}, "nothing that runs here trains, merges or builds"),
    "two passes that train": (changed("passes.more", {"type": "QLoRA"}), "passes.more: a second pass that trains"),
    "flows that are no list": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": {"a": 1}}, "pass_flows: wants a list, not dict"),
    "a flow of an unknown pass": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": [["b"]]}, "pass_flows: b is none of passes"),
    "two flows": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": [["a"], ["b"]]}, "pass_flows: 2 flows to choose from"),
    "a precision that there is not": (changed("passes.builder.config.precision", "fp16"), "no model in fp16 for CPU"),
    "an unknown system": (changed("engine.host", "moon"), "engine.host: 'moon' is none of systems (local)"),
    "a host that is no name": (changed("engine.host", ["local"]), "engine.host: ['local'] is none of systems (local)"),
    "a metric that is no object": ({"evaluators": {"e": {"metrics": ["accuracy"]}}}, "evaluators.e.metrics[0]: wants an object"),
    "metrics that are no list": ({"evaluators": {"e": {"metrics": {"a": 1}}}}, "evaluators.e.metrics: wants a list, not dict"),
    "a commit that is no text": (
        {"input_model": {"type": "HfModel", "model_path": "a/b", "load_kwargs": {"revision": 5}}},
        "input_model: load_kwargs.revision: wants a text, not int",
    ),
    "a precision that conf/ does not have": (
        {"passes": {"b": {"type": "ModelBuilder"}}, "execution_providers": ["CUDAExecutionProvider"]},
        "no model in fp32 for CUDAExecutionProvider in conf/build; there are fp16, bf16, int8, int4",
    ),
    "a system of unknown type": (changed("systems.local.type", "Abacus"), "systems.local.type: 'Abacus'"),
    "a value of a wrong type": (changed("passes.lora.config.lora_r", "many"), "passes.lora.config.lora_r: conf/: "),
    "a value that cannot be": (changed("passes.lora.config.lora_dropout", 2.0), "passes.lora.config.lora_dropout: conf/: "),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_one_line_and_writes_nothing(name: str, bring: Import) -> None:
    document, expected = CASES[name]
    said = bring(document).splitlines()[-1]
    assert said.startswith("import-olive: ")
    assert expected in said
    assert not EXPERIMENT.exists()


def test_a_configuration_that_is_not_there_is_named(bring: Import, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "olive-config.json")
    assert bring({}).endswith("brought/olive-config.json: no such file (CONFIG)")


@pytest.mark.parametrize("name", ["../mine", "a b", "", "123", "_a"])
def test_a_name_that_is_none_is_refused(name: str, bring: Import) -> None:
    assert "is not of letters, digits, _ and - alone, a letter first" in bring(whole(), name=name)


@pytest.mark.parametrize("name", ["null", "True"])
def test_a_name_that_hydra_reads_as_a_value_is_refused(name: str, bring: Import) -> None:
    assert "is a word of YAML's; choose another" in bring(whole(), name=name)


def test_an_earlier_import_survives_one_that_fails(bring: Import) -> None:
    bring(BLOCKS["LoRA"])
    before = EXPERIMENT.read_bytes()
    bring(changed("passes.lora.config.lora_r", "many"))
    assert EXPERIMENT.read_bytes() == before


def test_a_model_of_the_hub_wants_its_commit(bring: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = bring({"input_model": {"type": "HfModel", "model_path": "someone/model"}})
    assert "the Hub does not tell the commit of someone/model" in said
    assert 'give the commit as "revision" in load_kwargs' in said
    pin = {"revision": "0123456789abcdef0123456789abcdef01234567"}
    bring({"input_model": {"type": "HfModel", "model_path": "someone/model", "load_kwargs": pin}})
    text = EXPERIMENT.read_text(encoding="utf-8")
    assert "repo_id: someone/model # input_model.model_path" in text
    assert f'revision: "{pin["revision"]}"' in text


def test_a_secret_is_neither_shown_nor_part_of_the_experiment(bring: Import) -> None:
    client = STORED["config"]["azureml_client"] | {"default_auth_params": {"client_secret": "hush"}}
    said = bring({"azureml_client": client})
    assert "(hidden)" in said
    assert "hush" not in said
    assert "hush" not in EXPERIMENT.read_text(encoding="utf-8")
