"""`systems`, `engine` and `evaluators`: machines, execution providers, folders, logs, metrics and their goals."""

from collections.abc import Iterator
from typing import Any

from tools.olive import builder, passes, places
from tools.olive.document import Object, leaves, members, section
from tools.olive.mapping import FieldMapping, MappedField, Rule, Status, covered, map_fields, mapped_to, only, unsupported
from tunepress.core.errors import InputError

SECTIONS = ("input_model", "data_configs", "systems", "evaluators", "passes", "pass_flows", "builds", "azureml_client", "engine")
LOGS = covered("each stage prints a summary; HYDRA_FULL_ERROR=1 shows the traceback of an error")
FORCE = covered("`dvc repro --force` runs all stages again, `dvc gc` clears the cache")
SHARED = covered("`dvc push` and `dvc pull` share .dvc/cache")
ENGINE: dict[str, Rule] = {  # in newer versions of Olive they are next to `engine`
    "$schema": covered("tunepress/config checks each key before any stage runs"),
    "workflow_id": covered("the experiment's name"),
    "search_strategy": only(False, "there is no search", "`make search` reads space, constraints and sampler from conf/search/"),
    "cache_dir": covered(".dvc/cache"),
    "clean_cache": FORCE,
    "clean_evaluation_cache": FORCE,
    "cache_config": SHARED,
    "enable_shared_cache": SHARED,
    "output_dir": covered("models/, and for measurements metrics/ and report/"),
    "output_name": covered("models/ has a folder for each step"),
    "evaluate_input_model": covered("evaluate@base"),
    "evaluator": covered("evaluate measures base, merged and onnx"),
    "log_severity_level": LOGS,
    "ort_log_severity_level": LOGS,
    "ort_py_log_severity_level": LOGS,
    "log_to_file": LOGS,
    "plot_pareto_frontier": only(False, "there is no search", "report/ compares experiments in a table"),
    "no_artifacts": covered("models/ and metrics/ are kept, as DVC needs them"),
    "max_concurrent_builds": covered("a run makes one model"),
    "auto_optimizer_config": unsupported("`passes` selects the steps"),
    "packaging_config": unsupported("models/onnx is the package; `make docker-serve` serves it"),
}
ROLES = ("host", "target", "workflow_host")
SYSTEMS: dict[str, dict[str, Rule]] = {
    "localsystem": {"type": covered("this machine")},
    "docker": {"type": covered("`make docker-train` runs an experiment in this project's image")},
    "pythonenvironment": {"type": covered("`make setup` installs requirements/cpu.txt into .venv")},
    "isolatedort": {"type": covered("`make setup` installs requirements/cpu.txt into .venv")},
}
NOT_USED = covered("not used, since it is neither host nor target")
TARGET = covered("all stages run on the host")
ACCELERATORS = ("accelerators", "accelerators.device", "accelerators.execution_providers")
SYSTEM: dict[str, Rule] = {
    "accelerators.memory": unsupported("train compares the memory it needs with that available before it starts"),
    "hf_token": covered("the Hub's client reads HF_TOKEN"),
}


def used_system(document: Object, role: str) -> tuple[str, Object]:
    """The path of the system that is host or target, and the system; by default the first of `systems`."""
    engine, systems = section(document.get("engine", {}), "engine"), section(document.get("systems", {}), "systems")
    candidates = [("workflow_host", document.get("workflow_host"))] * (role == "host")  # the machine of the whole workflow
    candidates += [(f"{path}.{role}", tree.get(role)) for path, tree in (*passes.build_layers(document), ("engine", engine))]
    candidates += [(role, document.get(role)), ("", next(iter(systems), None))]
    path, system = next(((path, system) for path, system in candidates if system is not None), ("", None))
    if system is None or isinstance(system, dict):
        return path, system or {}
    if not isinstance(system, str) or system not in systems:
        raise InputError(f"{path}: {system!r} is not in systems ({', '.join(systems) or 'empty'})")
    return f"systems.{system}", section(systems[system], f"systems.{system}")


def map_machines(document: Object, place: str, provider: FieldMapping) -> list[MappedField]:
    """Maps the fields of systems and engine.

    Args:
        document: the whole configuration.
        place: path of the field with the execution provider; empty if there is none.
        provider: the mapping of that field.

    Raises:
        InputError: an unknown type of system.
    """
    (target, _), (host, _) = used_system(document, "target"), used_system(document, "host")
    fields = []
    for path, system in all_systems(document).items():
        rules = system_rules(system, path)
        if path != host:
            rules = dict.fromkeys((leaf.name for leaf in leaves(system, path)), TARGET if path == target else NOT_USED)
        fields += map_at(path, system, rules, place, provider)
    return fields + map_engine(document, place, provider)


def all_systems(document: Object) -> dict[str, Object]:
    """All systems by their path, including host and target if they are defined in place."""
    systems = {f"systems.{name}": system for name, system in section(document.get("systems", {}), "systems").items()}
    systems |= dict(used_system(document, role) for role in ("host", "target"))
    return {path: section(system, path) for path, system in systems.items() if path}


def map_at(path: str, tree: Any, rules: dict[str, Rule], place: str, provider: FieldMapping) -> list[MappedField]:
    """Maps the fields below a path; one of them may be the execution provider."""
    fields = map_fields(leaves(tree, path), rules, "nothing here corresponds to it")
    return [MappedField(field.leaf, combine(provider, field.mapping)) if field.leaf.path == place else field for field in fields]


def combine(provider: FieldMapping, other: FieldMapping) -> FieldMapping:
    """Combines the mapping of the execution provider with another one of the same field, such as the packages of a job."""
    if other.status is not Status.mapped:
        return provider
    return FieldMapping(Status.mapped, f"{provider.text}; {other.text}", {**provider.values, **other.values})


def system_rules(system: Object, path: str) -> dict[str, Rule]:
    """The rules for a system that is used.

    Raises:
        InputError: an unknown type of system.
    """
    kind = str(system.get("type", "")).lower()
    if places.is_machine(kind):
        return SYSTEM | places.machine_rules(path.rpartition(".")[2])
    if kind not in SYSTEMS:
        raise InputError(f"{path}.type: must be LocalSystem, Docker, PythonEnvironment or AzureML, got {system.get('type')!r}")
    overridden = covered("another field determines the execution provider")
    return SYSTEM | dict.fromkeys(ACCELERATORS, overridden) | SYSTEMS[kind]


def map_engine(document: Object, place: str, provider: FieldMapping) -> list[MappedField]:
    """Maps the fields of the engine, in `engine` or next to it."""
    system = covered("see systems")
    rules = ENGINE | dict.fromkeys(ROLES, system) | {"execution_providers": covered("see engine")}
    engine = {key: value for key, value in document.get("engine", {}).items() if not is_system(key, value)}
    flat = {key: value for key, value in document.items() if key not in SECTIONS and not is_system(key, value)}
    return map_at("engine", engine, rules, place, provider) * bool(engine) + map_at("", flat, rules, place, provider) * bool(flat)


def is_system(key: str, value: Any) -> bool:
    """Whether a field of the engine is a system, and not the name of one."""
    return key in ROLES and isinstance(value, dict)


DEVICES = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def providers_of(document: Object) -> tuple[list[str], str]:
    """The execution providers in Olive's names, of which the first is used, and the path of their field.

    Raises:
        InputError: the host or target is not in `systems`.
    """
    engine = section(document.get("engine", {}), "engine")
    places = [(f"{path}execution_providers", tree) for path, tree in (("engine.", engine), ("", document))]
    candidates = [(tree.get("execution_providers"), place) for place, tree in places]
    for role in ("target", "host"):
        path, system = used_system(document, role)
        candidates += [
            (leaf.value, leaf.path) for leaf in leaves(system, path) if leaf.name == "accelerators.execution_providers"
        ]
        candidates += devices(path, system)
    return next(((provider_names(names), place) for names, place in candidates if names), ([builder.DEFAULT], ""))


def provider_names(value: Any) -> list[str]:
    """The names in a list of providers; a provider in a library of its own is a pair with its path."""
    providers = value if isinstance(value, list) else [value]
    return [str(provider[0] if isinstance(provider, list) and provider else provider) for provider in providers]


def devices(path: str, system: Object) -> Iterator[tuple[list[str], str]]:
    """The execution providers of a system's devices, with the path of the field; older versions only list names of devices."""
    for leaf in leaves(system, path):
        if leaf.name in ("accelerators", "accelerators.device") and leaf.value:
            listed = leaf.value if isinstance(leaf.value, list) else [leaf.value]
            yield [DEVICES.get(str(device).lower(), str(device)) for device in listed], leaf.path


def provider_mapping(providers: list[str], builds: bool | None) -> FieldMapping:
    """Maps the field with the execution provider.

    Args:
        providers: in Olive's names.
        builds: whether a pass builds a model; None without passes.
    """
    name = providers[0]
    if builds is False:
        return covered("no model is built; training uses a GPU if there is one")
    if name not in builder.PROVIDERS:
        return unsupported(f"the builder does not support it; the model is for {builder.DEFAULT}")
    mapping = FieldMapping(Status.mapped, f"build.execution_provider={builder.PROVIDERS[name][0]}")
    if builds is None:
        mapping = mapped_to("/build", builder.group("int4", name, "execution_providers"))
    if len(providers) == 1:
        return mapping
    return FieldMapping(
        Status.unsupported, f"{mapping.text}; a run has one provider, import again for {', '.join(providers[1:])}", mapping.values
    )


def supported(provider: str) -> str:
    """The provider, or the default if the builder does not support it."""
    return provider if provider in builder.PROVIDERS else builder.DEFAULT


SCORED = covered("evaluate, compare and benchmark measure score, likelihood, size and speed of each model")
OWN = unsupported("for a metric of your own, set evaluate.metric=package.module.function of expected and answers")
UNKNOWN_METRIC = "no equivalent in evaluate and benchmark"
FIELDS: dict[str, Rule] = {
    "name": SCORED,
    "type": SCORED,
    "backend": SCORED,
    "data_config": covered("evaluate uses the rows of data.test_size or data.test_files"),
    "sub_types.name": SCORED,
    "sub_types.priority": covered("gate has a bound for each metric"),
    "sub_types.higher_is_better": SCORED,
    "metric_config.warmup_num": covered("benchmark.warm_up"),
    "metric_config.repeat_test_num": covered("benchmark.repetitions"),
}
GOALS = {  # the bound, and what it compares
    "max-degradation": ("gate.max_drop", "onnx with merged"),
    "min-improvement": ("gate.min_gain", "merged with base"),
}
NO_GOAL = unsupported("gate limits the loss by int4, the gain by training, size, speed and invalid answers")


def map_evaluators(evaluators: Any) -> list[MappedField]:
    """Maps the fields of `evaluators`."""
    fields: list[MappedField] = []
    for name, value in section(evaluators, "evaluators").items():
        evaluator = section(value, f"evaluators.{name}")
        for number, metric in enumerate(members(evaluator.get("metrics"), f"evaluators.{name}.metrics")):
            fields += map_metric(section(metric, f"evaluators.{name}.metrics[{number}]"), f"evaluators.{name}.metrics[{number}]")
        rest = {key: value for key, value in evaluator.items() if key != "metrics"}
        fields += map_fields(leaves(rest, f"evaluators.{name}"), FIELDS, UNKNOWN_METRIC) if rest else []
    return fields


def map_metric(metric: Object, path: str) -> Iterator[MappedField]:
    """Maps the fields of a metric."""
    kind = metric.get("type")
    rules = FIELDS | ({"type": OWN} if kind == "custom" else {})
    for number, value in enumerate(members(metric.get("sub_types"), f"{path}.sub_types")):
        sub_type = section(value, f"{path}.sub_types[{number}]")
        goal = section(sub_type.get("goal") or {}, f"{path}.sub_types[{number}].goal")
        bounded = kind == "accuracy" and sub_type.get("name") == "accuracy_score" and str(goal.get("type")) in GOALS
        goals: dict[str, Rule] = dict.fromkeys(("sub_types.goal.type", "sub_types.goal.value"), NO_GOAL)
        if bounded:
            key, compared = GOALS[goal["type"]]
            text = f"{key}={goal.get('value')}, compares {compared}; Olive compares with the input model"
            goals["sub_types.goal.type"] = covered(key)
            goals["sub_types.goal.value"] = covered(text, **{key: goal.get("value")})
        yield from map_fields(leaves(sub_type, f"{path}.sub_types[{number}]", ("sub_types",)), rules | goals, UNKNOWN_METRIC)
    rest = {key: value for key, value in metric.items() if key != "sub_types"}
    yield from map_fields(leaves(rest, path), rules, UNKNOWN_METRIC)
