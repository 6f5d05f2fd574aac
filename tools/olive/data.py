"""`data_configs`: the rows, how they become text, and how they are split."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from tools.olive import azure
from tools.olive.document import Leaf, Object, leaves, members, section, text
from tools.olive.hub import pinned
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
)
from tunepress.config.data import CorpusStrategy
from tunepress.core.errors import InputError
from tunepress.remote.addresses import is_remote, url_problem

# Levels of the two generations; a name is unique without them, except `type`, which each has.
COMPONENTS = {
    "load_dataset_config": "load_dataset",
    "pre_process_data_config": "pre_process",
    "pre_process_data": "pre_process",
    "post_process_data_config": "post_process",
    "dataloader_config": "dataloader",
}
READ = ("load_dataset", "pre_process")
NO_CODE = unsupported("Python code of a configuration is never run; write the rows as JSON lines")
RULES: dict[str, Rule] = {
    "name": covered("an experiment has one section `data`"),
    "type": covered("data.files or data.path"),
    "user_script": NO_CODE,
    "script_dir": NO_CODE,
    "text_formatting_func": NO_CODE,
    "load_dataset.type": only("huggingface_dataset", "data.files or data.path", "rows are read as they are, without code"),
    "pre_process.type": only("text_generation_huggingface_pre_process", "prepare fills data.text_template", "not supported"),
    "token": covered("the Hub's client reads HF_TOKEN"),
    "trust_remote_code": covered("a dataset's code is never run"),
    "model_name": covered("the tokenizer is the base model's"),
    "task": only("text-generation", "the only supported task", "only text generation is supported"),
    "dataset_type": only("corpus", "data.text_template renders each row", "set data.text_template instead"),
    "text_cols": covered("data.text_template names the columns"),
    "source_max_len": maps_to("data.source_max_len"),
    "max_seq_len": maps_to("data.source_max_len"),
    "pad_to_max_len": maps_to("data.pad_to_max_len"),
    "use_attention_mask": maps_to("data.use_attention_mask"),
    "max_samples": maps_to("data.max_samples"),
    "add_special_tokens": only(True, "prepare adds them", "prepare always adds them; without them an answer would have no end"),
    "drop_short_sequences": only(False, "sequences of any length are learned", "sequences of any length are learned"),
    "padding_side": covered("examples are packed without padding"),
    "joiner": covered("rows are joined end to end, each with its own begin and end token"),
    "processing_batch_size": covered("all rows are tokenized at once"),
    "random_seed": covered("the seed of the experiment"),
    "random_retries": covered("joined rows always fit"),
    "chat_template": lambda value: mapped_to("data.use_chat_template", value) if isinstance(value, bool) else unsupported(
        "the base model's own chat template, or none"
    ),
    "message_col": unsupported("rows are a prompt and its answer, not lists of messages"),
    "stride": unsupported("sequences do not overlap"),
}  # fmt: skip
UNKNOWN = "no equivalent in prepare"
VALIDATION = unsupported("validation rows are a share of the training rows, data.eval_dataset_size")
MEASURED = unsupported("evaluate uses the rows of data.test_size or data.test_files")


@dataclass(frozen=True)
class Users:
    """The names of data configurations by their use."""

    training: str | None
    validation: str | None
    evaluation: tuple[str, ...]


def map_data(data_configs: Any, users: Users, folder: Path) -> tuple[list[MappedField], list[Value]]:
    """Maps the fields of `data_configs`; also returns the values that no field sets.

    Args:
        data_configs: a list or, in older versions, an object.
        users: of the data configurations.
        folder: of the configuration, to which its paths are relative.

    Raises:
        InputError: the training has no data configuration, or its rows do not exist.
    """
    configs = by_path(data_configs)
    chosen = choose(configs, users.training)
    mapped: list[MappedField] = []
    values: list[Value] = []
    for path, config in configs.items():
        fields = [without_component(leaf) for leaf in leaves(config, path)]
        if path == chosen:
            flat = {leaf.name: leaf.value for leaf in fields}
            rules = RULES | row_rules(flat, folder, path) | text_rules(flat, path)
            mapped += map_fields(fields, rules, UNKNOWN)
            values += derived_values(mapped)
        else:
            name = config.get("name")
            mapping = VALIDATION if name == users.validation else MEASURED if name in users.evaluation else UNUSED
            mapped += [MappedField(leaf, mapping) for leaf in fields]
    return mapped, values


def by_path(data_configs: Any) -> dict[str, Object]:
    """The data configurations by their path."""
    if isinstance(data_configs, list):
        paths = {f"data_configs[{number}]": config for number, config in enumerate(data_configs)}
    else:
        paths = {f"data_configs.{name}": config for name, config in section(data_configs, "data_configs").items()}
    return {path: section(config, path) for path, config in paths.items()}


def choose(configs: Mapping[str, Object], name: str | None) -> str:
    """The path of the configuration with this name, or of the only one, which Olive's documents name in several ways."""
    matching = [path for path, config in configs.items() if name in (config.get("name"), path.removeprefix("data_configs."))]
    if matching or len(configs) == 1 or name is None:
        return (matching or list(configs))[0]
    raise InputError(
        f"train_data_config: {name} is not in data_configs ({', '.join(str(c.get('name')) for c in configs.values())})"
    )


def without_component(leaf: Leaf) -> Leaf:
    """The field with its name inside the component."""
    names = [COMPONENTS.get(name, name) for name in leaf.name.split(".") if name != "components"]
    if names[0] in READ and names[1:] != ["type"]:
        names = names[1:]
    return Leaf(leaf.path, ".".join(names), leaf.value)


def derived_values(fields: list[MappedField]) -> list[Value]:
    """Values that follow from the fields of the rows."""
    mapped = {key: value for field in fields for key, value in field.mapping.values.items()}
    labels = labels_of(mapped.get("data.files") or [], mapped["data.completion_column"])
    reason = "the answers in the file; null for free text" if labels else "free text; list the labels of a classification"
    whole = Value("train.completion_only_loss", False, "Olive trains on the prompt too")
    return [Value("data.labels", labels, reason), whole]


def labels_of(paths: list[str], column: str) -> list[str] | None:
    """The labels if the rows are a classification: few answers, each frequent."""
    if not paths or any(map(is_remote, paths)):
        return None
    from stages.prepare.rows import read_files

    answers = Counter(row.text(column).strip() for row in read_files(paths))
    classes = 2 <= len(answers) <= 20 and min(answers.values()) >= 10
    if classes and any("${" in answer for answer in answers):  # OmegaConf would interpolate it
        raise InputError(f"{paths[0]}: a label contains ${{, which params.yaml would interpolate; rename it in the rows")
    return sorted(answers) if classes else None


FILES = ("json", "csv", "parquet")  # values of data_name that are file types, not datasets of the Hub
UNUSED = unsupported("no pass trains on it; an experiment has one section `data`")


def row_rules(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules for the fields that locate the rows."""
    kind = flat.get("type", "HuggingfaceContainer")
    if str(kind).lower() != "huggingfacecontainer":
        raise InputError(f"{path}.type: must be HuggingfaceContainer, the only supported type, got {kind}")
    if flat.get("data_files.type") == azure.DATASTORE:
        return azure.row_rules() | file_rules(flat)
    if any(name.startswith("data_files.") for name in flat):
        return split_rules(flat, folder, path)
    if flat.get("data_files") is not None:
        return {"data_files": map_files(flat["data_files"], folder, path)} | file_rules(flat)
    if flat.get("data_name") in (*FILES, None):
        raise InputError(f"{path}: has no rows; set data_files, or data_name to a dataset of the Hub")
    return {
        "data_name": map_dataset(flat, folder, path),
        "subset": maps_to("data.name"),
        "split": maps_to("data.split"),
        "revision": covered("data.revision is its commit"),
    }


def map_dataset(flat: Mapping[str, Any], folder: Path, path: str) -> FieldMapping:
    """Maps a dataset of the Hub, or a folder with one."""
    name = str(flat["data_name"])
    values: dict[str, Any] = {"data.files": [], "data.path": os.path.relpath(folder / name)}
    if not (folder / name).is_dir():
        revision = text(flat.get("revision"), f"{path}: revision")
        commit, _ = pinned(name, revision, f"{path}: data_name", dataset=True)
        values |= {"data.path": name, "data.revision": commit}
    if "split" not in flat:
        values["data.split"] = "validation"  # Olive's default
    return FieldMapping(Status.mapped, f"data.path={values['data.path']}", values)


def file_rules(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for the fields next to the name of a file."""
    whole = covered("files are read completely; data.test_size and data.eval_dataset_size split them")
    part = unsupported("files are read completely; data.test_size and data.eval_dataset_size split them")
    split = flat.get("split")
    return {"data_name": covered("from the name of the file"), "split": part if "[" in str(split) else whole}


def map_files(data_files: Any, folder: Path, path: str) -> FieldMapping:
    """Maps local files and addresses."""
    files = data_files if isinstance(data_files, list) else [data_files]
    return mapped_to("data.files", [locate(file, folder, path) for file in files])


def locate(file: Any, folder: Path, path: str) -> str:
    """An address as it is, or the path of a file relative to the working folder."""
    if isinstance(file, str) and is_remote(file):
        if problem := url_problem(file):
            raise InputError(f"{path}: data_files: {problem}")
        return file
    if not isinstance(file, str) or not (folder / file).is_file():
        raise InputError(f"{path}: {folder / str(file)} not found (data_files); paths are relative to the configuration")
    return os.path.relpath(folder / file)


def split_rules(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules for files by split, of which one is read."""
    split = str(flat.get("split", "train"))
    files = flat.get(f"data_files.{split}")
    if files is None:
        raise InputError(f"{path}: data_files has no split {split}")
    others = [name for name in flat if name.startswith("data_files.") and name != f"data_files.{split}"]
    return file_rules(flat) | {f"data_files.{split}": map_files(files, folder, path)} | dict.fromkeys(others, UNUSED)


def text_rules(flat: Mapping[str, Any], path: str) -> dict[str, Rule]:
    """The rules for the fields that render a row as text."""
    columns = flat.get("text_cols") or []
    template = text(flat.get("text_template"), f"{path}: text_template")
    field = "text_template" if template else "text_cols"
    listed = [columns] if isinstance(columns, str) else members(columns, f"{path}: text_cols")
    template = template or " ".join(f"{{{name}}}" for name in listed)
    names = columns_of(template, path)
    if len(set(names)) < 2:
        raise InputError(f"{path}: text_template must have at least two columns; the last one is the answer")
    values = {"data.text_template": template, "data.completion_column": names[-1]}
    strategy = flat.get("strategy", flat.get("corpus_strategy"))
    rule = maps_to("data.corpus_strategy")
    if str(strategy) not in CorpusStrategy.__members__:
        rule = unsupported(f"data.corpus_strategy must be one of {', '.join(CorpusStrategy.__members__)}")
    answer = FieldMapping(Status.mapped, f"data.text_template, and data.completion_column={names[-1]}", values)
    return {field: answer, "strategy": rule, "corpus_strategy": rule}


def columns_of(template: str, path: str) -> list[str]:
    """The columns in a template, in order.

    Raises:
        InputError: the template is invalid.
    """
    try:
        return [name for _, name, _, _ in Formatter().parse(template) if name]
    except ValueError as error:
        raise InputError(f"{path}: text_template: {error}; write a literal brace twice") from error
