"""What cannot be imported ends in one line that names the place and the cure, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from tests.tools.olive.conftest import EXPERIMENT, Import
from tests.tools.olive.documents import BLOCKS, FILE, STORED, rows_in_components, whole


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
    "a comment": ('{\n  // of mine\n  "passes": {}}', "line 2: not JSON (JSON has no comments; remove it)"),
    "a comment behind a value": ('{"a": 1, /* one */ "b": 2}', "line 1: not JSON (JSON has no comments; remove it)"),
    "a number that JSON does not have": ('{"a": NaN}', "not JSON (NaN is not a number in JSON)"),
    "a number without end": (f'{{"a": {"9" * 5000}}}', "not JSON (Exceeds the limit (4300 digits)"),
    "no object": ("[1]", "an Olive configuration must be a JSON object, not list"),
    "a key twice": ('{"host": "a", "host": "b"}', "the key 'host' is twice"),
    "a section of another type": ({"passes": ["lora"]}, "passes: must be an object, not list"),
    "rows that are not a path": (changed(f"{LOAD}.data_files", [5]), "data_files: must be a path or an address"),
    "no rows": (changed(f"{LOAD}.data_files", None), "data_configs[0]: has no rows; set data_files"),
    "rows of another kind": (changed("data_configs.0.type", "DummyDataContainer"), "type: must be HuggingfaceContainer"),
    "rows at an address with a secret": (
        changed(f"{LOAD}.data_files", "https://host.example/rows.jsonl?sig=hush"),
        "data_files: https://host.example/rows.jsonl: the address contains a secret",
    ),
    "rows in the pass": (
        changed("passes.lora.config.train_data_config", {"name": "rows"}),
        "passes.lora.config.train_data_config.name: rows in a pass; move them to data_configs",
    ),
    "a template that is not a text": (changed(f"{TEXTS}.text_template", 5), "text_template: must be a string, not int"),
    "a template with half a column": (changed(f"{TEXTS}.text_template", "{"), "write a literal brace twice"),
    "a template that formats a value": (
        changed(f"{TEXTS}.text_template", "{phrase:>9} {tone}"),
        "text_template: {phrase:>9} must be the bare name of a column; format the value in the rows",
    ),
    "a template of one column": (changed(f"{TEXTS}.text_template", "{tone}"), "text_template must have at least two columns"),
    "a reference in the template": (changed(f"{TEXTS}.text_template", "Costs ${phrase}, {tone}"), "text_template: contains ${"),
    "a reference in another text": (
        changed("passes.lora.config.training_args.attn_implementation", "${oc.env:HOME}"),
        "passes.lora.config.training_args.attn_implementation: contains ${",
    ),
    "an unknown data configuration": (
        changed("data_configs", [rows_in_components(FILE) | {"name": name} for name in "ab"]),
        "train_data_config: dataset_default_train is not in data_configs (a, b)",
    ),
    "a model at an address": (changed(MODEL, "https://host.example/phi3"), "must be a folder, a name on the Hub or azureml://"),
    "a model of another type": (changed("input_model.type", "ONNXModel"), "input_model.type: must be HfModel or"),
    "no model": (changed(MODEL, None), "input_model: has no model"),
    "a model in Azure without version": (
        {"input_model": {"type": "HfModel", "model_path": {"type": "azureml_model", "name": "mine"}}},
        "a model in Azure needs name and version",
    ),
    "a pass without a type": (changed("passes.lora.type", None), "passes.lora.type: must be the name of a pass, such as LoRA"),
    "two passes that train": (changed("passes.more", {"type": "QLoRA"}), "passes.more: a second pass that trains"),
    "flows that are not a list": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": {"a": 1}}, "pass_flows: must be a list"),
    "a build of an unknown pass": (
        {"passes": {"a": {"type": "LoRA"}}, "builds": {"x": {"pipeline": ["b"]}}},
        "builds.x.pipeline: b is not in passes (a)",
    ),
    "builds that are a list": ({"passes": {"a": {"type": "LoRA"}}, "builds": [{"pipeline": ["a"]}]}, "builds: must be an object"),
    "a flow of an unknown pass": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": [["b"]]}, "pass_flows: b is not in passes"),
    "two flows": ({"passes": {"a": {"type": "LoRA"}}, "pass_flows": [["a"], ["b"]]}, "pass_flows: 2 flows to choose from"),
    "a precision that there is not": (changed("passes.builder.config.precision", "fp16"), "has no fp16 model for CPU"),
    "an unknown system": (changed("engine.host", "moon"), "engine.host: 'moon' is not in systems (local)"),
    "a host that is not a name": (changed("engine.host", ["local"]), "engine.host: ['local'] is not in systems (local)"),
    "a metric that is not an object": ({"evaluators": {"e": {"metrics": ["a"]}}}, "evaluators.e.metrics[0]: must be an object"),
    "metrics that are a dict": ({"evaluators": {"e": {"metrics": {"a": 1}}}}, "evaluators.e.metrics: must be a list, not dict"),
    "a commit that is not a text": (
        {"input_model": {"type": "HfModel", "model_path": "a/b", "load_kwargs": {"revision": 5}}},
        "input_model: load_kwargs.revision: must be a string, not int",
    ),
    "a precision that conf/ does not have": (
        {"passes": {"b": {"type": "ModelBuilder"}}, "execution_providers": ["CUDAExecutionProvider"]},
        "conf/build has no fp32 model for CUDAExecutionProvider; it has fp16, bf16, int8, int4",
    ),
    "a system of unknown type": (changed("systems.local.type", "Abacus"), "systems.local.type: must be LocalSystem, Docker"),
    "a value of a wrong type": (changed("passes.lora.config.lora_r", "many"), "passes.lora.config.lora_r: conf/: "),
    "a value that cannot be": (changed("passes.lora.config.lora_dropout", 2.0), "passes.lora.config.lora_dropout: conf/: "),
}  # fmt: skip


YAML: dict[str, tuple[str, str]] = {
    "broken YAML": ("passes:\n  lora: [\n", "line 3: not YAML (expected the node content, but found '<stream end>')"),
    "a key twice": ("host: a\nhost: b\n", "line 2: not YAML (the key 'host' is twice in one mapping; remove one)"),
    "a key that is not text": ("systems:\n  1: {}\n", "line 2: not YAML (a key must be text; quote it)"),
    "a number that JSON does not have": ("a: .nan\n", "not YAML of an Olive configuration (Out of range float values"),
    "a value within itself": ("a: &a [*a]\n", "not YAML of an Olive configuration (Circular reference detected)"),
    "an object of Python": ("a: !!python/object:os.system x\n", "could not determine a constructor for the tag"),
    "bytes": ("a: !!binary aGk=\n", "not YAML of an Olive configuration (Object of type bytes"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2: not YAML (but found another document)"),
    "an empty file": ("", "an Olive configuration must be a YAML mapping, not NoneType"),
    "a list": ("- a\n", "an Olive configuration must be a YAML mapping, not list"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_ends_in_one_line_and_writes_nothing(name: str, bring: Import) -> None:
    document, expected = YAML[name]
    output = bring(document, suffix=".yaml").splitlines()[-1]
    assert output.startswith("import-olive: ")
    assert expected in output
    assert not EXPERIMENT.exists()


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_one_line_and_writes_nothing(name: str, bring: Import) -> None:
    document, expected = CASES[name]
    output = bring(document).splitlines()[-1]
    assert output.startswith("import-olive: ")
    assert expected in output
    assert not EXPERIMENT.exists()


def test_a_configuration_that_is_not_there_is_named(bring: Import, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "olive-config.json")
    assert bring({}).endswith("brought/olive-config.json: not found (CONFIG)")


@pytest.mark.parametrize("name", ["../mine", "a b", "", "123", "_a"])
def test_a_name_that_is_none_is_refused(name: str, bring: Import) -> None:
    assert "must consist of letters, digits, _ and -, and start with a letter" in bring(whole(), name=name)


@pytest.mark.parametrize("name", ["null", "True"])
def test_a_name_that_hydra_reads_as_a_value_is_refused(name: str, bring: Import) -> None:
    assert "is a keyword of YAML; choose another name" in bring(whole(), name=name)


def test_an_earlier_import_survives_one_that_fails(bring: Import) -> None:
    bring(BLOCKS["LoRA"])
    before = EXPERIMENT.read_bytes()
    bring(changed("passes.lora.config.lora_r", "many"))
    assert EXPERIMENT.read_bytes() == before


def test_a_model_of_the_hub_wants_its_commit(bring: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    output = bring({"input_model": {"type": "HfModel", "model_path": "someone/model"}})
    assert "cannot look up the commit of someone/model on the Hub" in output
    assert 'set the commit as "revision" in load_kwargs, or put the model\'s folder at brought/someone/model' in output
    pin = {"revision": "0123456789abcdef0123456789abcdef01234567"}
    bring({"input_model": {"type": "HfModel", "model_path": "someone/model", "load_kwargs": pin}})
    text = EXPERIMENT.read_text(encoding="utf-8")
    assert "repo_id: someone/model # input_model.model_path" in text
    bring(
        {"input_model": {"type": "HfModel", "model_path": "https://huggingface.co/someone/model/tree/main", "load_kwargs": pin}}
    )
    assert EXPERIMENT.read_text(encoding="utf-8") == text
    assert f'revision: "{pin["revision"]}"' in text


def test_a_secret_is_neither_shown_nor_part_of_the_experiment(bring: Import) -> None:
    client = STORED["config"]["azureml_client"] | {"default_auth_params": {"client_secret": "hush"}}
    output = bring({"azureml_client": client})
    assert "(hidden)" in output
    assert "hush" not in output
    assert "hush" not in EXPERIMENT.read_text(encoding="utf-8")
