"""`passes`: which steps there are, and at which stage the run stops."""

from collections.abc import Mapping
from dataclasses import dataclass

from tools.olive import building, olive_defaults, training
from tools.olive.document import Leaf, Object, leaves, members, section
from tools.olive.fate import Fate, Kind, Line, Rule, Value, only, otherwise, refused, ruled, taken, values_of
from tools.olive.pass_types import why
from tunepress.core.errors import InputError

MERGE, EXTRACT = "mergeadapterweights", "extractadapters"
CONVERSIONS = {  # what made an ONNX model before the builder did all of it, and the precision that each leaves
    "onnxconversion": "fp32",
    "optimumconversion": "fp32",
    "optimummerging": None,
    "orttransformersoptimization": None,
    "onnxmatmul4quantizer": "int4",
    "onnxblockwisertnquantization": "int4",
    "onnxkquantquantization": "int4",
}
DONE = (*training.METHODS, MERGE, building.BUILDER, EXTRACT, *CONVERSIONS)
EVERY: Mapping[str, Rule] = {  # fields of any pass
    "type": refused("no stage does it"),
    "host": otherwise("all stages run on one machine"),
    "evaluator": otherwise("evaluate measures base, merged and onnx"),
    "disable_search": otherwise("nothing is searched"),
    "clean_run_cache": otherwise("`dvc repro --force` runs a stage again"),
    "output_name": otherwise("models/ has a folder for each step"),
}


INPUTS = "the adapter's weights are inputs of the graph, in a file of their own"
EXTRACTED: Mapping[str, Rule] = {"make_inputs": only(True, INPUTS, INPUTS), "adapter_type": only("lora", INPUTS, "only LoRA")}


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        path: its place.
        kind: its type in small letters.
        leaves: its fields.
    """

    path: str
    kind: str
    leaves: list[Leaf]


@dataclass(frozen=True)
class Steps:
    """What the passes come to.

    Attributes:
        lines: the fate of each field.
        values: those that come of no field.
        target: the stage at which the run stops; empty for the whole graph.
    """

    lines: list[Line]
    values: list[Value]
    target: str


def steps(document: Object, provider: str) -> Steps:
    """What becomes of the passes.

    Args:
        document: the whole configuration; where it has no passes, all stages stay.
        provider: the execution provider that a model is built for.

    Raises:
        InputError: a type of pass that is not known, or none that does anything here.
    """
    if "passes" not in document:
        return Steps([], [], "")
    found, lines = read(document)
    kinds = [one.kind for one in found]
    check(found)
    values: list[Value] = []
    for one in found:
        of_pass, more = parts(one, kinds, provider)
        lines += of_pass
        values += more
    if not set(kinds) & set(training.METHODS):
        values.append(Value("/adapter", "none", "no pass trains"))
        values.append(Value("gate.min_gain", None, "no pass trains"))
        values.append(Value("report.title", "${base_model.name} in ${build.precision}", "no pass trains"))
    return Steps(lines, values, "" if building.BUILDER in kinds or converted(kinds) else "merge")


def read(document: Object) -> tuple[list[Pass], list[Line]]:
    """The passes that run, and the fate of what belongs to others.

    Raises:
        InputError: a type of pass that Olive does not have, or several passes to choose from.
    """
    flow, lines = running(document)
    found = []
    for name, given in section(document["passes"], "passes").items():
        path = f"passes.{name}"
        if isinstance(given, list) and len(given) != 1:
            raise InputError(f"{path}: {len(given)} passes to choose from; leave one, `make search` compares recipes")
        one = section(given[0] if isinstance(given, list) else given, path)
        kind = str(one.get("type", "")).lower()
        if kind not in DONE and why(kind) is None:
            known = "LoRA, QLoRA, DoRA, LoftQ, MergeAdapterWeights, ModelBuilder, ExtractAdapters"
            raise InputError(f"{path}.type: {one.get('type')!r} is no pass of Olive's; those that run here are {known}")
        fields = list(leaves(one, path))
        if flow is None or name in flow:
            found.append(Pass(path, kind, fields))
        else:
            lines += [Line(leaf, otherwise("not in pass_flows: it does not run")) for leaf in fields]
    return found, lines


def running(document: Object) -> tuple[list[str] | None, list[Line]]:
    """The names of the passes that run, None for all, and the fate of `pass_flows`."""
    flows = members(document.get("pass_flows"), "pass_flows")
    if not flows:
        return None, []
    if len(flows) != 1 or not isinstance(flows[0], list):
        raise InputError(f"pass_flows: {len(flows)} flows to choose from; leave one, `make search` compares recipes")
    unknown = [str(name) for name in flows[0] if name not in list(document["passes"])]
    if unknown:
        raise InputError(f"pass_flows: {', '.join(unknown)} is none of passes ({', '.join(document['passes'])})")
    leaf = Leaf("pass_flows", "pass_flows", flows)
    return flows[0], [Line(leaf, otherwise("dvc.yaml has the order; what is not in it is left out"))]


def check(found: list[Pass]) -> None:
    """Raises InputError unless the passes do something here, and one at most trains."""
    if not {one.kind for one in found} & set(DONE):
        named = ", ".join(one.path for one in found) or "none"
        raise InputError(f"passes: nothing that runs here trains, merges or builds a model ({named})")
    trains = [one.path for one in found if one.kind in training.METHODS]
    if len(trains) > 1:
        raise InputError(f"{trains[1]}: a second pass that trains, after {trains[0]}; leave one")


def converted(kinds: list[str]) -> str | None:
    """The precision of a model that is made without ModelBuilder, None if none is."""
    precisions = {CONVERSIONS.get(kind) for kind in kinds}
    return None if building.BUILDER in kinds else next((one for one in ("int4", "fp32") if one in precisions), None)


def parts(one: Pass, kinds: list[str], provider: str) -> tuple[list[Line], list[Value]]:
    """The fate of a pass's fields, and the values that come of none."""
    own = [leaf for leaf in one.leaves if leaf.name not in EVERY]
    lines = ruled([leaf for leaf in one.leaves if leaf.name in EVERY], {**EVERY, "type": of_type(one, kinds, provider)}, "")
    values: list[Value] = []
    if one.kind in training.METHODS:
        lines += training.lines(one.kind, own)
        given = {value.key: value.value for value in values_of(lines)}
        values += olive_defaults.defaults(one.kind, given, {leaf.name.rpartition(".")[2] for leaf in own})
    elif one.kind == building.BUILDER:
        lines += building.lines(own, provider)
        values += building.default_precision(lines, provider, one.path)
    else:
        rules = EXTRACTED if one.kind == EXTRACT else {}
        lines += ruled(own, rules, why(one.kind) or "the stage has no such choice")
    return lines, values


def of_type(one: Pass, kinds: list[str], provider: str) -> Fate:
    """What becomes of the pass itself."""
    if one.kind in training.METHODS:
        return taken("/adapter", one.kind)
    if one.kind == MERGE:
        return otherwise("the stage merge")
    if one.kind == building.BUILDER:
        return otherwise("the stage build")
    if one.kind == EXTRACT:
        return extracted(kinds)
    if one.kind in CONVERSIONS:
        precision = converted(kinds)
        if precision and CONVERSIONS[one.kind] == precision:
            return taken("/build", building.group(precision, provider, one.path))
        return otherwise("the stage build")
    return refused(why(one.kind) or "")


def extracted(kinds: list[str]) -> Fate:
    """What becomes of ExtractAdapters: an adapter that stands apart from the ONNX model."""
    if building.BUILDER not in kinds or not {"lora", "qlora"} & set(kinds):
        return refused("build.adapters=separate wants a LoRA or QLoRA pass and a ModelBuilder")
    values = {"build.adapters": "separate", "build.algo_config": "k_quant_mixed", "merge.base": "original"}
    return Fate(Kind.taken, "build.adapters=separate", values)


def builds(document: Object) -> bool | None:
    """Whether a pass builds an ONNX model; None where the configuration has no passes."""
    if "passes" not in document:
        return None
    kinds = [one.kind for one in read(document)[0]]
    return building.BUILDER in kinds or converted(kinds) is not None
