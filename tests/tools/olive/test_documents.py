"""Olive's documents: each block and the whole become an experiment that composes, and each field has a line."""

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.tools.olive.conftest import EXPERIMENT, Import, composed
from tests.tools.olive.documents import BLOCKS, FILE, STORED, TEMPLATE, today, whole
from tools.olive import __main__ as command
from tools.olive.document import leaves
from tools.olive.experiment import render
from tools.olive.mapping import SEARCH, Value
from tools.olive.translation import translate
from tunepress.core.errors import InputError

HOSTED = {"host": "azure_arc", "target": "aml"}
DOCUMENTS: dict[str, Any] = {**BLOCKS, "whole": whole(), "today": today()}


def comments() -> dict[str, str]:
    """The comment after each value of the experiment, by the last part of its key."""
    lines = EXPERIMENT.read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r" *(?:- override )?/?(\w+): .*? # (.*)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_becomes_an_experiment_and_each_field_has_one_line(name: str, bring: Import, project: Path) -> None:
    output = bring(DOCUMENTS[name], "--strict")
    assert "conf/experiment/mine.yaml: " in output, output
    lines = translate(DOCUMENTS[name], project / "brought").fields
    assert sorted(field.leaf.path for field in lines) == sorted(leaf.path for leaf in leaves(DOCUMENTS[name], ""))


def test_what_is_empty_has_a_line_and_loses_nothing(bring: Import, project: Path) -> None:
    document: dict[str, Any] = today() | {"evaluators": None, "pass_flows": [], "engine": {}, "packaging_config": None}
    document["input_model"] |= {"model_script": None}
    assert "conf/experiment/mine.yaml: " in bring(document, "--strict")
    lines = translate(document, project / "brought").fields
    assert sorted(field.leaf.path for field in lines) == sorted(leaf.path for leaf in leaves(document, ""))


def test_where_olive_trains_on_all_rows_none_validate(bring: Import) -> None:
    output = bring(today())
    assert composed().data.eval_dataset_size == 0
    assert "data.test_size: a share of the rows is kept for evaluate" in output
    document = today()
    document["passes"]["tune"]["eval_dataset_size"] = None
    bring(document)
    assert composed().data.eval_dataset_size == 0
    assert comments()["eval_dataset_size"] == "passes.tune.eval_dataset_size"
    document["passes"]["tune"]["eval_dataset_size"] = 100
    bring(document)
    assert composed().data.eval_dataset_size > 0


def test_rows_may_lie_at_an_address(bring: Import) -> None:
    document = today()
    document["data_configs"][0]["load_dataset_config"]["data_files"] = ["https://host.example/rows.jsonl"]
    bring(document)
    assert composed().data.files == ["https://host.example/rows.jsonl"]


def test_a_known_model_at_another_commit_is_taken_at_that(bring: Import) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = {"type": "HfModel", "model_path": "microsoft/Phi-3-mini-4k-instruct", "load_kwargs": {"revision": commit}}
    bring({"input_model": model})
    assert (composed().base_model.revision, composed().base_model.license) == (commit, "mit")


def test_a_field_that_no_one_knows_is_told_and_refused_by_strict(bring: Import) -> None:
    document = whole()
    document["engine"]["warp_drive"] = {"speed": [1, 2]}
    output = bring(document)
    assert re.search(r"engine\.warp_drive\.speed .*\[1, 2\] .*not supported", output)
    assert "1 not supported; run" in output
    EXPERIMENT.unlink()
    assert bring(document, "--strict").endswith("nothing is written (--strict): engine.warp_drive.speed")
    assert not EXPERIMENT.exists()


def test_values_come_with_their_place(bring: Import) -> None:
    bring(whole())
    cfg = composed()
    assert cfg.base_model.source == "folder"
    assert cfg.base_model.path == "brought/model-cache/microsoft/phi-3-mini"
    assert cfg.data.files == [f"brought/{FILE}"]
    assert cfg.data.text_template == TEMPLATE
    assert (cfg.data.completion_column, cfg.data.corpus_strategy, cfg.data.source_max_len) == ("tone", "join", 1024)
    assert (cfg.data.pad_to_max_len, cfg.data.use_attention_mask, cfg.data.eval_dataset_size) == (False, False, 0.3)
    assert cfg.data.labels == ["fear", "joy", "sadness", "surprise"]
    assert (cfg.adapter.method, cfg.adapter.r, cfg.adapter.lora_alpha, cfg.adapter.lora_dropout) == ("lora", 64, 64, 0.1)
    assert cfg.adapter.target_modules == ["o_proj", "qkv_proj"]
    assert (cfg.train.max_steps, cfg.train.learning_rate, cfg.train.train_sampling_strategy) == (10, 1e-4, "group_by_length")
    assert (cfg.train.eval_strategy, cfg.train.eval_steps, cfg.train.max_grad_norm) == ("steps", 187, 0.3)
    assert (cfg.build.precision, cfg.build.execution_provider, cfg.seed) == ("int4", "cpu", 0)
    where = comments()
    assert where["r"] == "passes.lora.config.lora_r"
    assert where["files"] == "data_configs[0].load_dataset_config.params.data_files"
    assert where["eval_strategy"] == "passes.lora.config.training_args.evaluation_strategy"
    assert where["bf16"] == "Olive 0.6's default"


def test_todays_names_mean_the_same(bring: Import) -> None:
    bring(today())
    cfg = composed()
    assert (cfg.adapter.r, cfg.adapter.lora_alpha, cfg.adapter.lora_dropout) == (16, 32, 0.05)
    assert (cfg.data.corpus_strategy, cfg.data.source_max_len) == ("line-by-line", 256)
    assert (cfg.train.per_device_train_batch_size, cfg.train.warmup_steps, cfg.train.max_steps) == (2, 0.1, 4)
    assert (cfg.build.block_size, cfg.build.accuracy_level) == (32, 4)
    assert cfg.gate.max_drop == 0.02
    assert comments()["lora_dropout"] == "Olive 0.13's default"


def test_the_older_generation_validates_only_where_it_says_when(bring: Import) -> None:
    document = whole()
    del document["passes"]["lora"]["config"]["training_args"]["evaluation_strategy"]
    bring(document)
    assert (composed().train.eval_strategy, comments()["eval_strategy"]) == ("no", "Olive 0.6's default")


def test_projections_that_a_lora_pass_does_not_name_are_told(bring: Import) -> None:
    document = today()
    del document["passes"]["tune"]["target_modules"]
    bring(document)
    assert composed().adapter.target_modules == "all-linear"
    assert comments()["target_modules"].startswith("Olive uses those that it or peft lists")


def test_a_goal_for_another_figure_than_accuracy_is_told(project: Path) -> None:
    document = today()
    (sub_type,) = document["evaluators"]["scores"]["metrics"][0]["sub_types"]
    sub_type["name"] = "perplexity"
    translation = translate(document, project / "brought")
    assert [line.leaf.name for line in translation.unsupported] == ["sub_types.goal.type", "sub_types.goal.value"]
    assert "gate.max_drop" not in {value.key for value in translation.values}


def test_a_lora_pass_quantizes_nothing_and_qlora_does(bring: Import) -> None:
    bring(BLOCKS["LoRA"])
    assert composed().adapter.bnb_4bit_use_double_quant is None
    bring(BLOCKS["QLoRA"])
    adapter = composed().adapter
    assert (adapter.method, adapter.bnb_4bit_quant_type, adapter.bnb_4bit_use_double_quant) == ("qlora", "nf4", True)
    assert adapter.bnb_4bit_compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("kinds", "target", "method"),
    [
        (["LoRA", "MergeAdapterWeights", "ModelBuilder"], "", "lora"),
        (["QLoRA", "ModelBuilder"], "", "qlora"),
        (["LoRA", "MergeAdapterWeights"], " merge", "lora"),
        (["DoRA"], " merge", "dora"),
        (["ModelBuilder"], "", "none"),
        (["OptimumConversion", "OrtTransformersOptimization", "OnnxMatMul4Quantizer"], "", "none"),
    ],
)
def test_a_step_that_is_left_out_is_left_out(kinds: list[str], target: str, method: str, bring: Import) -> None:
    output = bring({"passes": {kind.lower(): {"type": kind, "precision": "int4"} for kind in kinds}})
    assert output.endswith(f"run `dvc exp run -S +experiment=mine{target}`\n")
    assert f"# dvc exp run -S +experiment=mine{target}\n" in EXPERIMENT.read_text(encoding="utf-8")
    cfg = composed()
    assert cfg.adapter.method == method
    assert (cfg.gate.min_gain is None) == (method == "none")


def test_the_base_model_can_be_exchanged(bring: Import) -> None:
    for document in (whole(), BLOCKS["registry model"]):
        bring(document)
        assert composed("base_model=tiny").base_model.source == "random"


@pytest.mark.parametrize("name", ["cloud data", "cloud data in params_config"])
def test_rows_of_a_datastore_keep_their_place(name: str, bring: Import) -> None:
    bring(BLOCKS[name])
    client = STORED["config"]["azureml_client"]
    place = {"datastore_name": "workspaceblobstore", "relative_path": "UI/rows.json"}
    assert composed().data.datastore == client | place
    assert comments()["relative_path"].endswith("data_files.config.relative_path")


def test_rows_without_a_workspace_of_their_own_are_in_that_of_the_configuration(bring: Import) -> None:
    document: Any = {"azureml_client": STORED["config"]["azureml_client"], **whole()}
    params = document["data_configs"][0]["load_dataset_config"]["params"]
    params["data_files"] = {"type": "azureml_datastore", "config": {"datastore_name": "d", "relative_path": "rows.json"}}
    bring(document)
    assert composed().data.datastore.workspace_name == "workspace"


def test_a_model_of_a_registry_keeps_its_version(bring: Import) -> None:
    bring(BLOCKS["registry model"])
    model = composed().base_model
    assert (model.source, model.registry_name, model.version) == ("azureml", "azureml-msr", "11")
    bring({"input_model": {"type": "HfModel", "model_path": "azureml://registries/azureml/models/Phi-4/versions/7"}})
    model = composed().base_model
    assert (model.source, model.registry_name, model.name, model.version) == ("azureml", "azureml", "Phi-4", "7")


def test_a_system_of_azure_becomes_settings_of_a_job(bring: Import) -> None:
    bring(BLOCKS["systems"])
    job = next(line for line in EXPERIMENT.read_text(encoding="utf-8").splitlines() if "azure-submit" in line)
    assert job.startswith("# make azure-submit EXPERIMENT=mine ARGS=\"environment.lock=cuda13 'compute=Your Azure AI Studio")
    assert "hf_token=true" in job
    assert "environment.image=registry.example/image:1 environment.conda_file=lock" in job


def test_the_host_is_the_machine_of_a_job_and_the_target_is_what_is_built_for(bring: Import) -> None:
    arc = {"type": "AzureML", "config": {"accelerators": ["cpu"], "aml_compute": "attached"}}
    bring(whole() | {"systems": BLOCKS["systems"]["systems"] | {"azure_arc": arc}, "engine": HOSTED})
    text = EXPERIMENT.read_text(encoding="utf-8")
    assert 'ARGS="azure_arc=true environment.lock=cpu compute=attached"' in text
    assert composed().build.execution_provider == "cuda"


def test_of_two_fields_for_one_key_the_one_that_does_not_count_is_told(project: Path) -> None:
    document = whole()
    document["passes"]["lora"]["config"] |= {"r": 8}
    (line,) = translate(document, project / "brought").unsupported
    assert (line.leaf.path, line.mapping.text) == ("passes.lora.config.lora_r", "overridden by passes.lora.config.r")


def test_what_is_not_supported_says_why(project: Path) -> None:
    document = whole()
    lora, engine = document["passes"]["lora"]["config"], document["engine"]
    lora["lora_r"] = {"olive_parameter_type": "SearchParameter", "support": [16, 32]}
    lora["training_args"] |= {"dataloader_num_workers": 4, "lr_scheduler_kwargs": {"num_cycles": 2}}
    lora["eval_data_config"] = "other"
    engine["search_strategy"] = {"sampler": "random"}
    engine["packaging_config"] = {"type": "Zipfile"}
    reasons = {line.leaf.path: line.mapping.text for line in translate(document, project / "brought").unsupported}
    assert reasons == {
        "passes.lora.config.lora_r.olive_parameter_type": SEARCH,
        "passes.lora.config.lora_r.support": SEARCH,
        "passes.lora.config.training_args.dataloader_num_workers": "not an argument of peft or transformers' Trainer here",
        "passes.lora.config.eval_data_config": "validation rows are a share of the training rows, data.eval_dataset_size",
        "engine.search_strategy.sampler": SEARCH,
        "engine.packaging_config.type": "models/onnx is the package; `make docker-serve` serves it",
    }


def test_an_adapter_that_is_extracted_stands_apart(bring: Import) -> None:
    bring(
        {"passes": {"a": {"type": "LoRA"}, "b": {"type": "ModelBuilder", "precision": "int4"}, "c": {"type": "ExtractAdapters"}}}
    )
    cfg = composed()
    assert (cfg.build.adapters, cfg.build.algo_config, cfg.merge.base) == ("separate", "k_quant_mixed", "original")


def test_a_model_is_built_for_the_target(bring: Import) -> None:
    document = whole()
    document["systems"]["gpu"] = {"type": "LocalSystem", "accelerators": [{"device": "gpu"}]}
    document["engine"]["target"] = "gpu"
    bring(document)
    assert composed().build.execution_provider == "cuda"
    document["engine"]["execution_providers"] = ["WebGpuExecutionProvider"]
    bring(document)
    assert composed().build.execution_provider == "webgpu"


def test_a_device_beside_the_engines_provider_is_no_loss(bring: Import) -> None:
    document = whole()
    document["systems"]["local"]["config"]["accelerators"] = ["gpu"]
    document["engine"]["execution_providers"] = ["CUDAExecutionProvider"]
    bring(document, "--strict")
    assert composed().build.execution_provider == "cuda"


@pytest.mark.parametrize("accelerators", [["npu"], [{"device": "npu"}]])
def test_a_device_without_a_builder_is_told(accelerators: list[Any], project: Path) -> None:
    document = whole()
    document["systems"]["local"]["config"]["accelerators"] = accelerators
    (line,) = translate(document, project / "brought").unsupported
    assert line.mapping.text == "the builder does not support it; the model is for CPUExecutionProvider"


def test_a_provider_without_a_builder_is_told(bring: Import, project: Path) -> None:
    document = whole()
    document["engine"]["execution_providers"] = ["OpenVINOExecutionProvider"]
    (line,) = translate(document, project / "brought").unsupported
    assert line.leaf.path == "engine.execution_providers"
    assert line.mapping.text == "the builder does not support it; the model is for CPUExecutionProvider"
    bring(document)
    assert composed().build.execution_provider == "cpu"


def test_of_several_providers_the_first_is_built_for_and_the_others_are_told(project: Path) -> None:
    document = whole()
    document["engine"]["execution_providers"] = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    translation = translate(document, project / "brought")
    (line,) = translation.unsupported
    assert line.mapping.text == "build.execution_provider=cuda; a run has one provider, import again for CPUExecutionProvider"
    assert {value.value for value in translation.values if value.key == "/build"} == {"cuda_int4"}


def test_a_word_and_a_number_of_yaml_stay_what_they_are(bring: Import) -> None:
    bring({"passes": {"lora": {"type": "LoRA", "training_args": {"evaluation_strategy": "no", "learning_rate": 1e-05}}}})
    cfg = composed()
    assert (cfg.train.eval_strategy, cfg.train.learning_rate) == ("no", 1e-5)


def test_a_template_of_any_characters_stays_what_it_is(bring: Import) -> None:
    document = today()
    template = "a\u0085\u007f\u2028\t\u00e9\U0001f600 # : \\n '\" {phrase}\n{tone}"
    document["data_configs"][0]["pre_process_data_config"]["text_template"] = template
    bring(document)
    assert composed().data.text_template == template


INJECTED = "x{break_}evaluate:{break_}  metric: os.system{break_}#"


@pytest.mark.slow
@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\u0085", "\u2028", "\u2029"])
def test_a_line_break_anywhere_in_the_configuration_begins_no_line_of_the_experiment(break_: str, bring: Import) -> None:
    hostile = INJECTED.format(break_=break_)
    plain = whole() | {"systems": BLOCKS["systems"]["systems"], "engine": {"host": "azure_arc", "target": "aml"}}
    bring(plain)
    expected, lines = composed(), EXPERIMENT.read_text(encoding="utf-8").count("\n")
    document = copy.deepcopy(plain)
    document["passes"] = {f"{hostile} {name}": entry for name, entry in document["passes"].items()}
    document["data_configs"] = {f"{hostile} rows": document["data_configs"][0]}
    document["systems"] = {f"{hostile} {name}": entry for name, entry in document["systems"].items()}
    document["engine"] = {role: f"{hostile} {name}" for role, name in document["engine"].items()}
    document["systems"][f"{hostile} azure_arc"]["config"]["aml_compute"] = hostile
    output = bring(document)
    assert "conf/experiment/mine.yaml: " in output
    assert composed() == expected
    assert len(EXPERIMENT.read_text(encoding="utf-8").splitlines()) == lines
    assert "\\n" in output or break_ != "\n"


def test_a_line_break_in_the_name_of_a_parameter_sets_no_other(bring: Import) -> None:
    name = "num_cycles: 1\nevaluate:\n  metric: print\n#"
    arguments = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {name: 1}}
    bring({"passes": {"lora": {"type": "LoRA", "training_args": arguments}}})
    assert composed().evaluate.metric is None
    assert composed().train.lr_scheduler_kwargs == {name: 1}


def test_the_name_of_the_configurations_file_is_one_line_of_the_experiment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project / "brought" / f"{INJECTED.format(break_=chr(10)).replace('/', '')}.json"
    config.write_text(json.dumps(whole()), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["import-olive", str(config), "--name", "mine"])
    command.main()
    assert composed().evaluate.metric is None


def test_an_imported_experiment_names_no_function_to_call() -> None:
    with pytest.raises(
        InputError, match=r"evaluate\.metric names a Python function to call, which an imported experiment must not set"
    ):
        render("mine", "olive-config.json", "", [Value("evaluate.metric", "os.system", "evaluators.mine")])


@pytest.mark.parametrize(
    "value",
    ["a: b", "yes", "- a", "#x", "!!python/object:os.system", "&a", "*a", "1e-5", "null", "", " ", "\t", "'", '"', "\ud800"],
)
def test_any_text_is_read_back_as_it_is(value: str) -> None:
    text = render(
        "mine", "olive-config.json", "", [Value("base_model.name", value, "why"), Value("data.files", [value, "b"], "why")]
    )
    assert yaml.safe_load(text) == {"base_model": {"name": value}, "data": {"files": [value, "b"]}}


def test_free_text_has_no_labels(bring: Import, project: Path) -> None:
    rows = "".join(f'{{"phrase": "p{number}", "tone": "t{number}"}}\n' for number in range(50))
    (project / "brought" / FILE).write_text(rows, encoding="utf-8")
    bring(whole())
    assert composed().data.labels is None


def test_an_experiment_is_imported_again_but_never_one_of_another_hand(bring: Import) -> None:
    bring(BLOCKS["LoRA"])
    bring(whole())
    assert composed().build.precision == "int4"
    output = bring(whole(), name="smoke")
    assert output.endswith("conf/experiment/smoke.yaml: exists and was not imported; choose another NAME")
