"""The rules for values that no single type expresses: within a group, and across groups.

A rule is a function whose parameters are the groups that it reads. It returns what is wrong in one line, which names the key
and the cure, or None.

The rules are applied in two places and nowhere else:

- `dvc.checked: ${check:}` in conf/config.yaml, so at every composition: by DVC for `dvc exp run -S`, and by `make params`.
- `load` in tunepress/core/params.py, so whenever a stage or a tool reads params.yaml: those rules whose groups it reads.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tunepress.config import adapter, build, train
from tunepress.config.adapter import Adapter, Method
from tunepress.config.build import SEPARATE_ON_ROUNDED_WEIGHTS, Adapters, Build
from tunepress.config.data import Data
from tunepress.config.evaluate import Evaluate, Guidance
from tunepress.config.gate import Gate
from tunepress.config.merge import LOFTQ_ON_ORIGINAL_WEIGHTS, Merge, MergeBase
from tunepress.config.params import Params, key_problem
from tunepress.core.errors import InputError
from tunepress.core.keys import flatten
from tunepress.remote import addresses
from tunepress.remote.collected import LISTS
from tunepress.text import labels


def check_composed(*, _root_: DictConfig) -> bool:
    """The resolver `check`: applies all rules to a configuration while it is composed.

    Raises:
        InputError: an unknown key (Hydra's `+key=value` adds any), or values that cannot go together.
    """
    keys = flatten(cast(dict[str, Any], OmegaConf.to_container(_root_, resolve=False)))
    if unknown := next(filter(None, map(key_problem, keys)), None):
        raise InputError(unknown)
    names = [field.name for field in fields(Params) if OmegaConf.is_config(_root_.get(field.name))]
    complete = {name: _root_[name] for name in names if not OmegaConf.missing_keys(_root_[name])}
    if wrong := problem({name: OmegaConf.to_object(group) for name, group in complete.items()}):
        raise InputError(wrong)
    return True


def problem(groups: Mapping[str, Any]) -> str | None:
    """What the first broken rule says, or None. Rules that read a group that is not given are skipped.

    Args:
        groups: each group by its name, as its dataclass.
    """
    for rule in RULES:
        names = inspect.signature(rule).parameters
        if names.keys() <= groups.keys() and (wrong := rule(**{name: groups[name] for name in names})):
            return wrong
    return None


def rows(data: Data) -> str | None:
    for name in LISTS:
        files = getattr(data, name)
        if not all(isinstance(file, str) and file for file in files):
            return f"data.{name}: must be a path, an address or a list of them, got {files}"
        for file in filter(addresses.is_remote, files):
            if wrong := addresses.url_problem(file):
                return wrong
    if data.datasets and (wrong := datasets_problem(data)):
        return wrong
    if data.near_duplicates is not None and not 0 < data.near_duplicates < 1:
        return f"data.near_duplicates: must be a similarity above 0 and below 1, or null, got {data.near_duplicates}"
    return None if data.labels is None else labels.labels_problem(data.labels)


def datasets_problem(data: Data) -> str | None:
    if data.files or data.path:
        return "data.datasets: is used instead of data.files and data.path; set data.files=[] and data.path=null"
    names = [dataset.name for dataset in data.datasets]
    for dataset in data.datasets:
        if names.count(dataset.name) > 1 or not dataset.name:
            return f"data.datasets: each needs a name of its own, got {', '.join(map(repr, names))}"
        if not math.isfinite(dataset.weight) or dataset.weight <= 0:
            return f"data.datasets: the weight of {dataset.name} must be above 0, got {dataset.weight}"
        if addresses.is_remote(dataset.path):
            return f"data.datasets: the path of {dataset.name} must be on this machine; addresses can be in data.files"
    return None


def training_rows(data: Data, adapter: Adapter) -> str | None:
    if data.files or data.path or data.datasets:
        return None
    if adapter.method is not Method.none and not adapter.method.brought:
        return "data.files: is empty; name a file, or a dataset in data.path"
    if not data.test_files:
        return "data.test_files: is empty, and so is data.files; name the rows to measure the model with"
    return None


def baselines(evaluate: Evaluate, gate: Gate) -> str | None:
    if evaluate.n_shot < 1:
        return f"evaluate.n_shot: must be at least 1, got {evaluate.n_shot}"
    measured = [baseline.value for baseline in evaluate.baselines]
    if unknown := next((name for name in gate.min_gain_over or {} if name not in measured), None):
        return (
            f"gate.min_gain_over: {unknown} is not in evaluate.baselines ({', '.join(measured)}); add it there, or remove it here"
        )
    return None


def json_schema(data: Data, evaluate: Evaluate) -> str | None:
    if data.json_schema and data.labels:
        return "data.json_schema: is for answers in JSON, and data.labels are answers; set one of the two to null"
    if evaluate.guidance is Guidance.schema and not data.json_schema:
        return "evaluate.guidance: schema needs data.json_schema, which is null; name a file, or set it to null"
    if evaluate.guidance is Guidance.schema and (wrong := guidance_problem(Path(data.json_schema or ""))):
        return f"evaluate.guidance: {wrong}; simplify the schema, or set it to null"
    if evaluate.guidance is Guidance.labels and not data.labels:
        return "evaluate.guidance: labels needs data.labels, which is null; set it to null"
    return None


def guidance_problem(file: Path) -> str | None:
    """Why a schema cannot guide answers. A file that does not exist is found by `prepare`."""
    from tunepress.inference.guidance import unsupported_problem  # half a second
    from tunepress.text.json_answers import read_schema

    return unsupported_problem(read_schema(file)) if file.exists() else None


def probabilities(data: Data, evaluate: Evaluate, gate: Gate) -> str | None:
    bound = evaluate.abstain_below
    if bound is not None and not 0 < bound < 1:
        return f"evaluate.abstain_below: must be a probability above 0 and below 1, or null, got {bound}"
    if data.labels:
        return None
    needing = {
        "evaluate.abstain_below": bound,
        "gate.max_calibration_error": gate.max_calibration_error,
        "gate.max_flipped_share": gate.max_flipped_share,
    }
    if name := next((name for name, value in needing.items() if value is not None), None):
        return f"{name}: needs probabilities of labels, and data.labels is null; set it to null"
    return None


def forgetting(evaluate: Evaluate, gate: Gate) -> str | None:
    if gate.max_forgetting is not None and evaluate.retained is None and not evaluate.tasks:
        return "gate.max_forgetting: needs evaluate.retained, which is null; set it to a folder, or remove the bound"
    return None


def separate_adapter(build: Build, adapter: Adapter, merge: Merge) -> str | None:
    if build.adapters is Adapters.merged:
        return None
    method = adapter.method.value
    if adapter.method is Method.none:
        return "build.adapters: separate needs an adapter, and adapter.method is none; set build.adapters=merged"
    if adapter.method.use_dora:
        alternative = method.replace("dora", "lora")
        return f"build.adapters: separate cannot keep the magnitudes of {method}; use adapter={alternative}, or merged here"
    if adapter.init_lora_weights == "loftq":
        return "build.adapters: an adapter initialized by loftq fits only the rounded weights; set build.adapters=merged"
    if (adapter.method.quantized or adapter.bnb_4bit_quant_type) and merge.base is MergeBase.dequantized:
        return SEPARATE_ON_ROUNDED_WEIGHTS
    return None


def loftq_base(adapter: Adapter, merge: Merge) -> str | None:
    if adapter.init_lora_weights == "loftq" and merge.base is MergeBase.original:
        return LOFTQ_ON_ORIGINAL_WEIGHTS
    return None


# In this order: the first that is broken is reported.
RULES: tuple[Callable[..., str | None], ...] = (
    rows,
    training_rows,
    baselines,
    json_schema,
    probabilities,
    forgetting,
    adapter.problem,
    train.problem,
    separate_adapter,
    build.problem,
    loftq_base,
)
