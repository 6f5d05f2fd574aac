"""`evaluators`: metrics, and the goals that a model must reach."""

from collections.abc import Iterator
from typing import Any

from tools.olive.document import Object, leaves, members, section
from tools.olive.mapping import MappedField, Rule, covered, map_fields, unsupported

MEASURED = covered("evaluate, compare and benchmark measure score, likelihood, size and speed of each model")
OWN = unsupported("for a metric of your own, set evaluate.metric=package.module.function of expected and answers")
UNKNOWN = "no equivalent in evaluate and benchmark"
FIELDS: dict[str, Rule] = {
    "name": MEASURED,
    "type": MEASURED,
    "backend": MEASURED,
    "data_config": covered("evaluate uses the rows of data.test_size or data.test_files"),
    "sub_types.name": MEASURED,
    "sub_types.priority": covered("gate has a bound for each metric"),
    "sub_types.higher_is_better": MEASURED,
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
        fields += map_fields(leaves(rest, f"evaluators.{name}"), FIELDS, UNKNOWN) if rest else []
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
        yield from map_fields(leaves(sub_type, f"{path}.sub_types[{number}]", ("sub_types",)), rules | goals, UNKNOWN)
    rest = {key: value for key, value in metric.items() if key != "sub_types"}
    yield from map_fields(leaves(rest, path), rules, UNKNOWN)
