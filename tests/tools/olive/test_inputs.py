"""Configurations as people have them: with what changes nothing, with newer passes and several builds, and in YAML."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.tools.olive.conftest import EXPERIMENT, Import, composed, lines, translated
from tests.tools.olive.documents import BUILDER, finetuned, rows, today, whole
from tools.olive.translation import translate


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
def test_an_empty_section_is_one_that_is_missing(name: str, empty: Any, project: Path) -> None:
    document = whole()
    if name == "systems":
        document.pop("engine")
    translation = translated(document | {name: empty}, project)
    document.pop(name, None)
    assert translation.unsupported == []
    assert translation.values == translate(document, project / "brought").values
    assert any(note.startswith(f"{name}: missing, conf") for note in translation.notes) == (
        name in ("input_model", "data_configs", "passes")
    )


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


def test_a_builder_that_only_writes_metadata_of_a_converted_model_is_the_stage_build(bring: Import) -> None:
    external = {"save_as_external_data": True, "all_tensors_to_one_file": True}
    passes = {
        "t": {"type": "QLoRA"},
        "c": {"type": "OnnxConversion", **external},
        "o": {"type": "OrtTransformersOptimization", "float16": True, **external},
        "e": {"type": "ExtractAdapters", "make_inputs": True, **external},
        "m": {"type": "ModelBuilder", "precision": "fp16", "metadata_only": True},
    }
    assert "conf/experiment/mine.yaml: " in bring(
        {"passes": passes, "execution_providers": ["CUDAExecutionProvider"]}, "--strict"
    )
    assert (composed().build.precision, composed().build.adapters) == ("fp16", "separate")


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
        ("LoHa", "the adapters are those of conf/adapter"),
        ("Whatever", "no stage does this"),
    ],
)
def test_a_pass_that_is_not_known_is_a_line(kind: str, reason: str, project: Path) -> None:
    for others in ({}, {"t": {"type": "LoRA", "r": 8}}):
        document: dict[str, Any] = {"passes": {**others, "a": {"type": kind, "option": 1}}}
        assert lines(document, project) == {"passes.a.type": reason, "passes.a.option": "of a pass that is not supported"}


@pytest.mark.parametrize("others", [{}, {"t": {"type": "LoRA", "r": 8}}])
def test_a_pass_that_is_not_known_is_fatal_only_under_strict(others: dict[str, Any], bring: Import) -> None:
    document: dict[str, Any] = {"passes": {**others, "a": {"type": "RyzenGenerateModelLLM", "option": 1}}}
    assert bring(document, "--strict").endswith("nothing is written (--strict): passes.a.type, passes.a.option")
    assert not EXPERIMENT.exists()
    assert "2 not supported; run" in bring(document)
    assert composed().adapter.method == ("lora" if others else "none")


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


def test_a_machine_that_is_defined_in_a_build_is_used_and_each_field_has_a_line(project: Path) -> None:
    gpu = {"type": "LocalSystem", "accelerators": [{"device": "gpu"}]}
    builds = {"_default": {"target": gpu, "host": gpu}, "small": {"pipeline": ["tune", "build"], "host": gpu}, "b": {"host": gpu}}
    translation = translated(BUILDS | {"builds": builds}, project)
    assert [field.leaf.path for field in translation.unsupported] == [
        "builds.b.host.type",
        "builds.b.host.accelerators[0].device",
    ]
    assert {value.value for value in translation.values if value.key == "/build"} == {"cuda_int4"}
    assert "same as without the field" not in {field.mapping.text for field in translation.fields}


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


@pytest.mark.parametrize(
    ("document", "suffix"), [(whole(), ".yaml"), (today(), ".yml"), (finetuned(), ".YAML")], ids=["whole", "today", "finetuned"]
)
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
