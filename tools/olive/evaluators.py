"""`evaluators`: what is measured, and the goals that a model must reach."""

from collections.abc import Iterator
from typing import Any

from tools.olive.document import Object, leaves, members, section
from tools.olive.fate import Line, Rule, otherwise, refused, ruled

MEASURED = otherwise("evaluate, compare and benchmark take score, likelihood, size and speed of each model")
OWN = refused("a metric of your own is evaluate.metric=package.module.function of expected and answers")
UNKNOWN = "evaluate and benchmark have nothing like it"
FIELDS: dict[str, Rule] = {
    "name": MEASURED,
    "type": MEASURED,
    "backend": MEASURED,
    "data_config": otherwise("evaluate sees the rows of data.test_size or data.test_files"),
    "sub_types.name": MEASURED,
    "sub_types.priority": otherwise("gate has a bound for each figure"),
    "sub_types.higher_is_better": MEASURED,
    "metric_config.warmup_num": otherwise("benchmark.warm_up"),
    "metric_config.repeat_test_num": otherwise("benchmark.repetitions"),
}
GOALS = {  # the bounds here, and what is held against what
    "max-degradation": ("gate.max_drop", "onnx against merged"),
    "min-improvement": ("gate.min_gain", "merged against base"),
}
NO_GOAL = refused("gate bounds the loss by int4, the gain by training, size, speed and wrong answers")


def lines(evaluators: Any) -> list[Line]:
    """The fate of each field of `evaluators`."""
    found: list[Line] = []
    for name, given in section(evaluators, "evaluators").items():
        evaluator = section(given, f"evaluators.{name}")
        for number, metric in enumerate(members(evaluator.get("metrics"), f"evaluators.{name}.metrics")):
            found += of_metric(section(metric, f"evaluators.{name}.metrics[{number}]"), f"evaluators.{name}.metrics[{number}]")
        rest = {key: value for key, value in evaluator.items() if key != "metrics"}
        found += ruled(leaves(rest, f"evaluators.{name}"), FIELDS, UNKNOWN) if rest else []
    return found


def of_metric(metric: Object, path: str) -> Iterator[Line]:
    """The fate of each field of a metric."""
    kind = metric.get("type")
    rules = FIELDS | ({"type": OWN} if kind == "custom" else {})
    for number, given in enumerate(members(metric.get("sub_types"), f"{path}.sub_types")):
        sub_type = section(given, f"{path}.sub_types[{number}]")
        goal = section(sub_type.get("goal") or {}, f"{path}.sub_types[{number}].goal")
        bounded = kind == "accuracy" and sub_type.get("name") == "accuracy_score" and str(goal.get("type")) in GOALS
        goals: dict[str, Rule] = dict.fromkeys(("sub_types.goal.type", "sub_types.goal.value"), NO_GOAL)
        if bounded:
            key, of = GOALS[goal["type"]]
            said = f"{key}={goal.get('value')}, {of}; Olive holds it against the input model"
            goals["sub_types.goal.type"] = otherwise(key)
            goals["sub_types.goal.value"] = otherwise(said, **{key: goal.get("value")})
        yield from ruled(leaves(sub_type, f"{path}.sub_types[{number}]", ("sub_types",)), rules | goals, UNKNOWN)
    rest = {key: value for key, value in metric.items() if key != "sub_types"}
    yield from ruled(leaves(rest, path), rules, UNKNOWN)
