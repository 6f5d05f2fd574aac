"""`passes`, with `pass_flows` and `builds`: which steps run, and at which stage the run stops."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.olive import builder, training
from tools.olive.document import Leaf, Object, leaves, members, section
from tools.olive.mapping import (
    FieldMapping,
    MappedField,
    Rule,
    Status,
    Value,
    covered,
    map_fields,
    mapped_to,
    maps_to,
    only,
    unsupported,
    values_of,
)
from tunepress.core.errors import InputError

MERGE, EXTRACT = "mergeadapterweights", "extractadapters"
ALIASES = {"genaimodelexporter": builder.BUILDER}  # the name of ModelBuilder in its first versions
DEFAULTS = "_default"  # the settings of all builds
CONVERSIONS = {  # passes that made an ONNX model before ModelBuilder, and the precision of their result
    "onnxconversion": "fp32",
    "optimumconversion": "fp32",
    "optimummerging": None,
    "orttransformersoptimization": None,
    "onnxmatmul4quantizer": "int4",
    "onnxblockwisertnquantization": "int4",
    "onnxkquantquantization": "int4",
}
QUANTIZER_OPTIONS = ("block_size", "accuracy_level", "is_symmetric", "nodes_to_exclude")  # named as in conf/build
OTHER_BUILDERS = ("mobiusbuilder", "mobiusmodelbuilder")  # that also make a model for onnxruntime-genai
SUPPORTED = ("LoRA", "QLoRA", "DoRA", "LoftQ", "MergeAdapterWeights", "ModelBuilder", "ExtractAdapters")  # as Olive writes them
EVERY: Mapping[str, Rule] = {  # fields of any pass
    "type": unsupported("no stage does this"),
    "host": covered("all stages run on one machine"),
    "evaluator": covered("evaluate measures base, merged and onnx"),
    "disable_search": covered("there is no search"),
    "clean_run_cache": covered("`dvc repro --force` runs a stage again"),
    "output_name": covered("models/ has a folder for each step"),
    **dict.fromkeys(
        ("save_as_external_data", "all_tensors_to_one_file", "external_data_name", "size_threshold", "convert_attribute"),
        covered("the weights are in one file next to the graph"),
    ),
}


ORDER = covered("dvc.yaml has the order of the stages")
NOT_SELECTED = covered("not selected by pass_flows or builds, so it does not run")
BUILD: Mapping[str, Rule] = {  # fields of a build of `builds`
    "pipeline": ORDER,
    "host": covered("see systems"),
    "target": covered("see systems"),
    "evaluator": EVERY["evaluator"],
    "output_dir": covered("models/, and for measurements metrics/ and report/"),
    "search_strategy": only(False, "there is no search", "`make search` reads space, constraints and sampler from conf/search/"),
    "components": unsupported("the whole model is built"),
}
QUANTIZER: Mapping[str, Rule] = {name: maps_to(f"build.{name}") for name in QUANTIZER_OPTIONS}
GRAPH = covered("the builder makes an optimized graph in one step")
CONVERSION: Mapping[str, Rule] = {"float16": only(False, "see build.precision", "add a ModelBuilder with precision fp16")}
INPUTS = "the adapter's weights are inputs of the graph, in a separate file"
EXTRACTED: Mapping[str, Rule] = {"make_inputs": only(True, INPUTS, INPUTS), "adapter_type": only("lora", INPUTS, "only LoRA")}


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        path: in the configuration.
        kind: its type in lower case.
        leaves: its fields.
    """

    path: str
    kind: str
    leaves: list[Leaf]


@dataclass(frozen=True)
class Steps:
    """The result of mapping the passes.

    Attributes:
        fields: all fields of the passes.
        values: that no field sets.
        builds: whether a pass makes an ONNX model; None without passes.
        trains: whether a pass trains; None without passes.
    """

    fields: list[MappedField]
    values: list[Value]
    builds: bool | None = None
    trains: bool | None = None

    @property
    def target(self) -> str:
        """The last stage; empty for the whole graph."""
        return "merge" if self.builds is False else ""


def map_passes(document: Object, provider: str) -> Steps:
    """Maps the passes.

    Args:
        document: the whole configuration; without passes, all stages run.
        provider: the execution provider of the model.

    Raises:
        InputError: a pass without a type, or several that train.
    """
    passes, fields = read(document)
    if "passes" not in document:
        return Steps(fields, [])
    kinds = [step.kind for step in passes]
    trains = [step.path for step in passes if step.kind in training.METHODS]
    if len(trains) > 1:
        raise InputError(f"{trains[1]}: a second pass that trains, after {trains[0]}; keep one")
    values: list[Value] = []
    for step in passes:
        step_fields, step_values = map_pass(step, kinds, provider)
        fields += step_fields
        values += step_values
    if not trains:
        values.append(Value("/adapter", "none", "no pass trains"))
        values.append(Value("gate.min_gain", None, "no pass trains"))
        values.append(Value("report.title", "${base_model.name} in ${build.precision}", "no pass trains"))
    return Steps(fields, values, builds_model(kinds), bool(trains))


def read(document: Object) -> tuple[list[Pass], list[MappedField]]:
    """The passes that run, and the mapped fields of the others.

    Raises:
        InputError: a pass without a type, or several to choose from.
    """
    flow, fields = selected_flow(document)
    passes = []
    for name, value in section(document.get("passes", {}), "passes").items():
        path = f"passes.{name}"
        if isinstance(value, list) and len(value) != 1:
            raise InputError(f"{path}: {len(value)} passes to choose from; keep one, `make search` compares recipes")
        step = section(value[0] if isinstance(value, list) else value, path)
        if not isinstance(step.get("type"), str) or not step["type"]:
            raise InputError(f"{path}.type: must be the name of a pass, such as LoRA or ModelBuilder, got {step.get('type')!r}")
        kind = ALIASES.get(step["type"].lower(), step["type"].lower())
        step_leaves = list(leaves(step, path))
        if flow is None or name in flow:
            passes.append(Pass(path, kind, step_leaves))
        else:
            fields += [MappedField(leaf, NOT_SELECTED) for leaf in step_leaves]
    return passes, fields


def selected_flow(document: Object) -> tuple[list[str] | None, list[MappedField]]:
    """The names of the passes that run, None for all, and the mapped fields `pass_flows` and `builds`."""
    flows = members(document.get("pass_flows"), "pass_flows")
    fields: list[MappedField] = []
    if flows:
        if len(flows) != 1 or not isinstance(flows[0], list):
            raise InputError(f"pass_flows: {len(flows)} flows to choose from; keep one, `make search` compares recipes")
        check_names(flows[0], document, "pass_flows")
        fields = [MappedField(Leaf("pass_flows", "pass_flows", flows), ORDER)]
    layers = build_layers(document)
    pipeline, path = next(((tree["pipeline"], path) for path, tree in layers if tree.get("pipeline")), (None, ""))
    if pipeline is not None:
        check_names(members(pipeline, f"{path}.pipeline"), document, f"{path}.pipeline")
    return pipeline or (flows[0] if flows else None), fields + map_builds(document, layers)


def check_names(names: list[Any], document: Object, path: str) -> None:
    """Raises InputError if one is not the name of a pass."""
    passes = list(document.get("passes", {}))
    if unknown := [str(name) for name in names if name not in passes]:
        raise InputError(f"{path}: {', '.join(unknown)} is not in passes ({', '.join(passes)})")


def build_layers(document: Object) -> list[tuple[str, Object]]:
    """The first of `builds` and their defaults, each with its path, in the order in which a setting is looked up."""
    builds = section(document.get("builds", {}), "builds")
    names = [name for name in builds if name != DEFAULTS][:1] + [DEFAULTS] * (DEFAULTS in builds)
    return [(f"builds.{name}", section(builds[name], f"builds.{name}")) for name in names]


def map_builds(document: Object, layers: list[tuple[str, Object]]) -> list[MappedField]:
    """Maps the fields of `builds`, except the systems that are defined in them and used.

    Args:
        document: the whole configuration.
        layers: the build that is imported, and the defaults.
    """
    fields: list[MappedField] = []
    systems = [next((f"{path}.{role}" for path, tree in layers if tree.get(role) is not None), "") for role in ("host", "target")]
    for name, value in section(document.get("builds", {}), "builds").items():
        path = f"builds.{name}"
        build = section(value, path)
        rest = {key: part for key, part in build.items() if not (isinstance(part, dict) and f"{path}.{key}" in systems)}
        other = unsupported(f"a run makes one model, that of {layers[0][0]}; import again without that for another")
        rules: Mapping[str, Rule] = BUILD if (path, build) in layers else dict.fromkeys(build, other)
        fields += map_fields(leaves(rest, path), rules, "not an option of a build") if rest else []
    return fields


def builds_model(kinds: Iterable[str]) -> bool:
    """Whether passes of these types make an ONNX model."""
    return any(kind == builder.BUILDER or kind in OTHER_BUILDERS for kind in kinds) or converted(kinds) is not None


def converted(kinds: Iterable[str]) -> str | None:
    """The precision of a model that is made without ModelBuilder; None if there is no such model."""
    precisions = {CONVERSIONS.get(kind) for kind in kinds}
    return None if builder.BUILDER in kinds else next((name for name in ("int4", "fp32") if name in precisions), None)


def map_pass(step: Pass, kinds: list[str], provider: str) -> tuple[list[MappedField], list[Value]]:
    """The mapped fields of a pass, and the values that no field sets."""
    own = [leaf for leaf in step.leaves if leaf.name not in EVERY]
    fields = map_fields(
        [leaf for leaf in step.leaves if leaf.name in EVERY], {**EVERY, "type": map_type(step, kinds, provider)}, ""
    )
    values: list[Value] = []
    if step.kind in training.METHODS:
        fields += training.map_training(step.kind, own)
        chosen = {value.key: value.value for value in values_of(fields)}
        values += training.defaults(step.kind, chosen, {leaf.name.rpartition(".")[2] for leaf in own})
    elif step.kind == builder.BUILDER:
        fields += builder.map_builder(own, provider, any(kind in CONVERSIONS for kind in kinds))
        values += builder.default_precision(fields, provider, step.path)
    elif CONVERSIONS.get(step.kind) == "int4":
        fields += map_fields(own, QUANTIZER, "the builder has no such option")
    elif step.kind in CONVERSIONS:
        other = {} if builder.BUILDER in kinds else CONVERSION
        fields += map_fields(own, {**dict.fromkeys((leaf.name for leaf in own), GRAPH), **other}, "")
    else:
        known = step.kind in (MERGE, EXTRACT)
        unknown = "the stage has no such option" if known else "of a pass that is not supported"
        fields += map_fields(own, EXTRACTED if step.kind == EXTRACT else {}, unknown)
    return fields, values


def map_type(step: Pass, kinds: list[str], provider: str) -> FieldMapping:
    """Maps the type of a pass."""
    if step.kind in training.METHODS:
        return mapped_to("/adapter", step.kind)
    if step.kind == MERGE:
        return covered("the stage merge")
    if step.kind == builder.BUILDER:
        return covered("the stage build")
    if step.kind == EXTRACT:
        return map_extraction(kinds)
    if step.kind in CONVERSIONS:
        precision = converted(kinds)
        if precision and CONVERSIONS[step.kind] == precision:
            return mapped_to("/build", builder.group(precision, provider, step.path))
        return covered("the stage build")
    return unsupported(unsupported_reason(step.kind))


def map_extraction(kinds: list[str]) -> FieldMapping:
    """Maps ExtractAdapters: the adapter is separate from the ONNX model."""
    if builder.BUILDER not in kinds or not {"lora", "qlora"} & set(kinds):
        return unsupported("build.adapters=separate needs a LoRA or QLoRA pass and a ModelBuilder")
    values = {"build.adapters": "separate", "build.algo_config": "k_quant_mixed", "merge.base": "original"}
    return FieldMapping(Status.mapped, "build.adapters=separate", values)


# Parts of a type in lower case, and why it is not supported.
REASONS = {
    "gguf": "models/merged is a folder that llama.cpp's converter accepts",
    "^lo(ha|kr)$|^sd": "the adapters are those of conf/adapter",
    "mobius": "the stage build makes the model, with onnxruntime-genai's builder",
    "openvino|qairt|qnn|quark|snpe|tensorrt|trt|vitis|ryzen|aimet|nvmo": (
        "the model is only for onnxruntime-genai and its execution providers"
    ),
    "quant|gptq|awq|hqq|rtn|rot$|spin|sparse|slice|clip|bnb4": "the stage build quantizes the weights, see build.algo_config",
}


def unsupported_reason(kind: str) -> str:
    """Why a type of pass, in lower case, is not supported, whether or not Olive has it."""
    reason = next((reason for part, reason in REASONS.items() if re.search(part, kind)), None)
    close = difflib.get_close_matches(kind, [name.lower() for name in SUPPORTED], n=1, cutoff=0.8)
    if reason is None and close:
        return f"not a pass that is known here; is it {next(name for name in SUPPORTED if name.lower() == close[0])}?"
    return reason or "no stage does this"
