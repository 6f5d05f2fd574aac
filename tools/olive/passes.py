"""`passes`: which steps run, and at which stage the run stops."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    only,
    unsupported,
    values_of,
)
from tunepress.core.errors import InputError

MERGE, EXTRACT = "mergeadapterweights", "extractadapters"
CONVERSIONS = {  # passes that made an ONNX model before ModelBuilder, and the precision of their result
    "onnxconversion": "fp32",
    "optimumconversion": "fp32",
    "optimummerging": None,
    "orttransformersoptimization": None,
    "onnxmatmul4quantizer": "int4",
    "onnxblockwisertnquantization": "int4",
    "onnxkquantquantization": "int4",
}
SUPPORTED = (*training.METHODS, MERGE, builder.BUILDER, EXTRACT, *CONVERSIONS)
EVERY: Mapping[str, Rule] = {  # fields of any pass
    "type": unsupported("no stage does this"),
    "host": covered("all stages run on one machine"),
    "evaluator": covered("evaluate measures base, merged and onnx"),
    "disable_search": covered("there is no search"),
    "clean_run_cache": covered("`dvc repro --force` runs a stage again"),
    "output_name": covered("models/ has a folder for each step"),
}


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
        target: the last stage; empty for the whole graph.
    """

    fields: list[MappedField]
    values: list[Value]
    target: str


def map_passes(document: Object, provider: str) -> Steps:
    """Maps the passes.

    Args:
        document: the whole configuration; without passes, all stages run.
        provider: the execution provider of the model.

    Raises:
        InputError: an unknown type of pass, or no supported step.
    """
    if "passes" not in document:
        return Steps([], [], "")
    passes, fields = read(document)
    kinds = [step.kind for step in passes]
    check(passes)
    values: list[Value] = []
    for step in passes:
        step_fields, step_values = map_pass(step, kinds, provider)
        fields += step_fields
        values += step_values
    if not set(kinds) & set(training.METHODS):
        values.append(Value("/adapter", "none", "no pass trains"))
        values.append(Value("gate.min_gain", None, "no pass trains"))
        values.append(Value("report.title", "${base_model.name} in ${build.precision}", "no pass trains"))
    return Steps(fields, values, "" if builder.BUILDER in kinds or converted(kinds) else "merge")


def read(document: Object) -> tuple[list[Pass], list[MappedField]]:
    """The passes that run, and the mapped fields of the others.

    Raises:
        InputError: an unknown type of pass, or several passes to choose from.
    """
    flow, fields = selected_flow(document)
    passes = []
    for name, value in section(document["passes"], "passes").items():
        path = f"passes.{name}"
        if isinstance(value, list) and len(value) != 1:
            raise InputError(f"{path}: {len(value)} passes to choose from; keep one, `make search` compares recipes")
        step = section(value[0] if isinstance(value, list) else value, path)
        kind = str(step.get("type", "")).lower()
        if kind not in SUPPORTED and unsupported_reason(kind) is None:
            known = "LoRA, QLoRA, DoRA, LoftQ, MergeAdapterWeights, ModelBuilder, ExtractAdapters"
            raise InputError(f"{path}.type: {step.get('type')!r} is not a pass of Olive; those supported are {known}")
        step_leaves = list(leaves(step, path))
        if flow is None or name in flow:
            passes.append(Pass(path, kind, step_leaves))
        else:
            fields += [MappedField(leaf, covered("not in pass_flows, so it does not run")) for leaf in step_leaves]
    return passes, fields


def selected_flow(document: Object) -> tuple[list[str] | None, list[MappedField]]:
    """The names of the passes that run, None for all, and the mapped field `pass_flows`."""
    flows = members(document.get("pass_flows"), "pass_flows")
    if not flows:
        return None, []
    if len(flows) != 1 or not isinstance(flows[0], list):
        raise InputError(f"pass_flows: {len(flows)} flows to choose from; keep one, `make search` compares recipes")
    unknown = [str(name) for name in flows[0] if name not in list(document["passes"])]
    if unknown:
        raise InputError(f"pass_flows: {', '.join(unknown)} is not in passes ({', '.join(document['passes'])})")
    leaf = Leaf("pass_flows", "pass_flows", flows)
    return flows[0], [MappedField(leaf, covered("dvc.yaml has the order of the stages"))]


def check(passes: list[Pass]) -> None:
    """Raises InputError unless a pass is supported and at most one trains."""
    if not {step.kind for step in passes} & set(SUPPORTED):
        paths = ", ".join(step.path for step in passes) or "none"
        raise InputError(f"passes: must have one that trains, merges or builds a model, got {paths}")
    trains = [step.path for step in passes if step.kind in training.METHODS]
    if len(trains) > 1:
        raise InputError(f"{trains[1]}: a second pass that trains, after {trains[0]}; keep one")


def converted(kinds: list[str]) -> str | None:
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
        fields += builder.map_builder(own, provider)
        values += builder.default_precision(fields, provider, step.path)
    else:
        rules = EXTRACTED if step.kind == EXTRACT else {}
        fields += map_fields(own, rules, unsupported_reason(step.kind) or "the stage has no such option")
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
    return unsupported(unsupported_reason(step.kind) or "")


def map_extraction(kinds: list[str]) -> FieldMapping:
    """Maps ExtractAdapters: the adapter is separate from the ONNX model."""
    if builder.BUILDER not in kinds or not {"lora", "qlora"} & set(kinds):
        return unsupported("build.adapters=separate needs a LoRA or QLoRA pass and a ModelBuilder")
    values = {"build.adapters": "separate", "build.algo_config": "k_quant_mixed", "merge.base": "original"}
    return FieldMapping(Status.mapped, "build.adapters=separate", values)


def builds(document: Object) -> bool | None:
    """Whether a pass builds an ONNX model; None without passes."""
    if "passes" not in document:
        return None
    kinds = [step.kind for step in read(document)[0]]
    return builder.BUILDER in kinds or converted(kinds) is not None


# Of olive_config.json in Olive 0.6.2 and 0.13.0.
FOREIGN = """
    AddOliveMetadata AimetQuantization AppendPrePostProcessingOps AutoAWQQuantizer AutoClip CaptureLayerAnnotations
    CaptureSplitInfo ComposeOnnxModels DynamicToFixedShape EPContextBinaryGenerator Gptq GptqModel GptqQuantizer
    GraphSurgeries IncDynamicQuantization IncQuantization IncStaticQuantization InputNCHWtoNHWC InsertBeamSearch
    KQuant LoHa LoKr MatMulNBitsToQDQ MixedPrecisionOverrides MobiusBuilder MoEExpertsDistributor
    NVModelOptGraphSurgery NVModelOptQuantization OnnxBnb4Quantization OnnxDiscrepancyCheck OnnxDynamicQuantization
    OnnxFloatToFloat16 OnnxHqqQuantization OnnxIODataTypeConverter OnnxIOFloat16ToFloat32 OnnxModelOptimizer
    OnnxOpVersionConversion OnnxPeepholeOptimizer OnnxQuantization OnnxQuantizationPreprocess OnnxScriptFusion
    OnnxStaticQuantization OpenVINOConversion OpenVINOEncapsulation OpenVINOIoUpdate OpenVINOOptimumConversion
    OpenVINOQuantization OpenVINOQuantizationWithAccuracy OpenVINOWeightCompression OrtMixedPrecision OrtPerfTuning
    OrtSessionParamsTuning PowerOfTwoMethod PyTorchTensorParallel QairtEncapsulation QairtGenAIBuilder QairtMHA2SHA
    QairtPipelinePass QairtPreparation QNNContextBinaryGenerator QNNConversion QNNModelLibGenerator QNNPreprocess
    QuantizationAwareTraining quantize_static QuarkQuantization QuaRot Rtn SDLoRA SelectiveMixedPrecision SliceGPT
    SNPEConversion SNPEQuantization SNPEtoONNXConversion SparseGPT SpinQuant SplitModel StaticLLM TorchTRTConversion
    VitisAIAddMetaData VitisAIQuantization VitisGenerateModelLLM VitisGenerateModelSD VitisQDQQuantizer
    VitisQOpQuantizer
"""

RUNTIMES = ("openvino", "qairt", "qnn", "quark", "snpe", "tensorrt", "trt", "vitis")
QUANTIZERS = ("quant", "gptq", "awq", "gptqmodel", "hqq", "rtn", "rot", "spin", "sparse", "slice", "clip")


def unsupported_reason(kind: str) -> str | None:
    """Why a type of pass is not supported; None if Olive has no such type.

    Args:
        kind: the type in lower case.
    """
    if kind not in FOREIGN.lower().split():
        return None
    if kind.startswith(RUNTIMES):
        return "the model is only for onnxruntime-genai and its execution providers"
    if any(name in kind for name in QUANTIZERS):
        return "the stage build quantizes the weights, see build.algo_config"
    return "no stage does this"
