"""`systems`, `engine` and what stands beside them: machines, execution providers, folders, logs."""

from typing import Any

from tools.olive import azure
from tools.olive.document import Object, leaves, section
from tools.olive.fate import Fate, Kind, Line, Rule, only, otherwise, refused, ruled
from tunepress.core.errors import InputError

SECTIONS = ("input_model", "data_configs", "systems", "evaluators", "passes", "pass_flows", "azureml_client", "engine")
LOGS = otherwise("each stage says what it made; HYDRA_FULL_ERROR=1 shows where an error came from")
FORCE = otherwise("`dvc repro --force` runs all again, `dvc gc` clears the cache")
SHARED = otherwise("`dvc push` and `dvc pull` share .dvc/cache")
ENGINE: dict[str, Rule] = {  # in today's Olive they stand beside `engine`
    "$schema": otherwise("tunepress/config checks each key before any work"),
    "workflow_id": otherwise("the experiment's name"),
    "search_strategy": only(False, "nothing is searched", "`make search` takes space, bounds and sampler from conf/search/"),
    "cache_dir": otherwise(".dvc/cache"),
    "clean_cache": FORCE,
    "clean_evaluation_cache": FORCE,
    "cache_config": SHARED,
    "enable_shared_cache": SHARED,
    "output_dir": otherwise("models/, and for what was measured metrics/ and report/"),
    "output_name": otherwise("models/ has a folder for each step"),
    "evaluate_input_model": otherwise("evaluate@base"),
    "evaluator": otherwise("evaluate measures base, merged and onnx"),
    "log_severity_level": LOGS,
    "ort_log_severity_level": LOGS,
    "ort_py_log_severity_level": LOGS,
    "log_to_file": LOGS,
    "plot_pareto_frontier": only(False, "nothing is searched", "report/ compares experiments in a table"),
    "no_artifacts": only(False, "models/ is kept", "models/ is kept"),
    "packaging_config": refused("models/onnx is the package; `make docker-serve` makes a service of it"),
}
SYSTEMS: dict[str, dict[str, Rule]] = {
    "localsystem": {"type": otherwise("this machine")},
    "docker": {"type": otherwise("`make docker-train` runs an experiment in this project's image")},
    "pythonenvironment": {"type": otherwise("`make setup` installs requirements/cpu.txt into .venv")},
    "isolatedort": {"type": otherwise("`make setup` installs requirements/cpu.txt into .venv")},
}
NOT_USED = otherwise("neither host nor target: not used")
TARGET = otherwise("all stages run on the host")
ACCELERATORS = ("accelerators", "accelerators.device", "accelerators.execution_providers")
SYSTEM: dict[str, Rule] = {
    "accelerators.memory": refused("`train` says before it starts what it needs, and what there is"),
    "hf_token": otherwise("the Hub's client takes HF_TOKEN"),
}


def used(document: Object, role: str) -> tuple[str, Object]:
    """The place of the system that is host or target, and itself; the first of `systems` where none is named."""
    engine, systems = section(document.get("engine", {}), "engine"), section(document.get("systems", {}), "systems")
    within = "engine." if role in engine else ""
    given = engine.get(role, document.get(role))
    if isinstance(given, dict):
        return f"{within}{role}", given
    name = given if given is not None else next(iter(systems), None)
    if name is None:
        return "", {}
    if not isinstance(name, str) or name not in systems:
        raise InputError(f"{within}{role}: {name!r} is none of systems ({', '.join(systems) or 'there are none'})")
    return f"systems.{name}", section(systems[name], f"systems.{name}")


def lines(document: Object, place: str, provider: Fate) -> list[Line]:
    """The fate of each field of systems and engine.

    Args:
        document: the whole configuration.
        place: that says which execution provider a model is built for; empty if none does.
        provider: what becomes of it.

    Raises:
        InputError: a kind of system that Olive does not have.
    """
    (target, _), (host, _) = used(document, "target"), used(document, "host")
    found = []
    for path, system in described(document).items():
        rules = system_rules(system, path)
        if path != host:
            rules = dict.fromkeys((leaf.name for leaf in leaves(system, path)), TARGET if path == target else NOT_USED)
        found += at(path, system, rules, place, provider)
    return found + engine_lines(document, place, provider)


def described(document: Object) -> dict[str, Object]:
    """All systems by their place: those of `systems`, and host and target where they stand in full."""
    systems = {f"systems.{name}": given for name, given in section(document.get("systems", {}), "systems").items()}
    systems |= dict(used(document, role) for role in ("host", "target"))
    return {path: section(given, path) for path, given in systems.items() if path}


def at(path: str, tree: Any, rules: dict[str, Rule], place: str, provider: Fate) -> list[Line]:
    """The fate of the fields below a place, one of which may say the execution provider."""
    unknown = "nothing of a machine's kind is set here"
    lines = ruled(leaves(tree, path), rules, unknown)
    return [Line(line.leaf, both(provider, line.fate)) if line.leaf.path == place else line for line in lines]


def both(provider: Fate, other: Fate) -> Fate:
    """What becomes of a place that says the execution provider, and may say more: for a job its packages too."""
    if other.kind is not Kind.taken:
        return provider
    return Fate(Kind.taken, f"{provider.said}; {other.said}", {**provider.values, **other.values})


def system_rules(system: Object, path: str) -> dict[str, Rule]:
    """The rules of a system that is used.

    Raises:
        InputError: Olive has no such kind.
    """
    kind = str(system.get("type", "")).lower()
    if azure.is_machine(kind):
        return SYSTEM | azure.machine_rules(path.rpartition(".")[2])
    if kind not in SYSTEMS:
        raise InputError(f"{path}.type: {system.get('type')!r} is none of LocalSystem, Docker, PythonEnvironment, AzureML")
    beside = otherwise("the place that goes first says the execution provider")
    return SYSTEM | dict.fromkeys(ACCELERATORS, beside) | SYSTEMS[kind]


def engine_lines(document: Object, place: str, provider: Fate) -> list[Line]:
    """The fate of each field of the engine, in `engine` or beside it."""
    system = otherwise("systems has it")
    rules = ENGINE | {"host": system, "target": system, "execution_providers": otherwise("engine says it")}
    engine = {key: value for key, value in document.get("engine", {}).items() if not is_system(key, value)}
    flat = {key: value for key, value in document.items() if key not in SECTIONS and not is_system(key, value)}
    return at("engine", engine, rules, place, provider) * bool(engine) + at("", flat, rules, place, provider) * bool(flat)


def is_system(key: str, value: Any) -> bool:
    """Whether a field of the engine is a system in full, and not the name of one."""
    return key in ("host", "target") and isinstance(value, dict)
