"""`data_configs`: which rows are trained on, where they are, and how they are split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.olive import places, text
from tools.olive.document import Leaf, Object, leaves, section, string
from tools.olive.mapping import (
    FieldMapping,
    MappedField,
    Rule,
    Status,
    Value,
    covered,
    map_field,
    map_fields,
    mapped_to,
    maps_to,
    only,
    unsupported,
)
from tools.olive.places import absent, exists, local, shown
from tunepress.core.errors import InputError
from tunepress.remote.addresses import is_remote, url_problem

# Levels of the two generations; a name is unique without them, except `type`, which each has.
COMPONENTS = {
    "load_dataset_config": "load_dataset",
    "pre_process_data_config": "pre_process",
    "pre_process_data": "pre_process",
    "post_process_data_config": "post_process",
    "post_process_data": "post_process",
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
    "add_special_tokens": covered("prepare begins and ends a row as the tokenizer does"),
    "drop_short_sequences": only(False, "sequences of any length are learned", "sequences of any length are learned"),
    "padding_side": covered("examples are packed without padding"),
    "joiner": covered("rows are joined end to end, each with its own begin and end token"),
    "processing_batch_size": covered("all rows are tokenized at once"),
    "random_seed": covered("the seed of the experiment"),
    "random_retries": covered("joined rows always fit"),
    "post_process": covered("for evaluators; a pass that trains does not use it, in Olive either"),
    "dataloader": covered("see train.per_device_train_batch_size; a pass that trains does not use it, in Olive either"),
    "stride": unsupported("sequences do not overlap"),
}  # fmt: skip
UNKNOWN = "no equivalent in prepare"
VALIDATION = unsupported("validation rows are a share of the training rows, data.eval_dataset_size")
MEASURED = unsupported("evaluate uses the rows of data.test_size or data.test_files")
PROMPTED = covered("benchmark measures with prompts of its own")
CALIBRATION = unsupported("build.algo_config=gptq looks at the training rows")
ALIKE = covered("the same as for the training rows")
DIFFERENT = unsupported("all rows are rendered as those that are trained on")
UNUSED = covered("no pass or evaluator uses it")
UNTRAINED = covered("not used, since no pass trains")
NO_ROWS = "data_configs: not used, since no pass trains; conf/config.yaml determines data"


@dataclass(frozen=True)
class Users:
    """The names of data configurations by their use."""

    training: str | None
    validation: str | None
    evaluation: tuple[str, ...]
    other: tuple[str, ...]  # by other passes, such as those that quantize
    trains: bool | None  # whether a pass trains; None without passes


@dataclass(frozen=True)
class Rows:
    """The result of mapping the data configurations.

    Attributes:
        fields: all their fields.
        values: that no field sets.
        notes: for the user.
    """

    fields: list[MappedField]
    values: list[Value]
    notes: list[str]


def map_data(data_configs: Any, users: Users, folder: Path) -> Rows:
    """Maps the fields of `data_configs`.

    Args:
        data_configs: a list or, in older versions, an object.
        users: of the data configurations.
        folder: of the configuration, to which its paths are relative.

    Raises:
        InputError: the training has no data configuration, or its rows cannot be found or rendered.
    """
    configs = by_path(data_configs)
    if users.trains is False:
        return untrained(configs, folder)
    chosen = choose(configs, users.training)
    fields = map_config(configs[chosen], chosen, folder)
    for path, config in configs.items():
        if path != chosen:
            fields += map_other(config, path, folder, other_use(config, users), configs[chosen])
    own_test = any("data.test_files" in field.mapping.values for field in fields)
    return Rows(fields, text.derived_values(fields), [] if own_test else [text.TEST_ROWS])


def untrained(configs: Mapping[str, Object], folder: Path) -> Rows:
    """Maps data configurations on which no pass trains: the first that has rows is still the one that evaluate reads."""
    fields: dict[str, list[MappedField]] = {}
    values: list[Value] = []
    for path, config in configs.items():
        fields[path] = [MappedField(leaf, UNTRAINED) for leaf in config_leaves(config, path)]
        if not values:
            try:
                mapped = map_config(config, path, folder)
                values = text.derived_values(mapped)
            except InputError:  # such as the generated rows of a dummy container
                continue
            fields[path] = [MappedField(field.leaf, without_refusal(field.mapping)) for field in mapped]
    return Rows([field for group in fields.values() for field in group], values, [text.TEST_ROWS if values else NO_ROWS])


def without_refusal(mapping: FieldMapping) -> FieldMapping:
    """The mapping of a field on which no result of the configuration depends."""
    return replace(UNTRAINED, values=mapping.values) if mapping.status is Status.unsupported else mapping


def map_config(config: Object, path: str, folder: Path) -> list[MappedField]:
    """Maps the fields of the data configuration whose rows are used."""
    fields = config_leaves(config, path)
    flat = {leaf.name: leaf.value for leaf in fields}
    return map_fields(fields, RULES | text.text_rules(flat, path) | row_rules(flat, folder, path), UNKNOWN)


def config_leaves(config: Object, path: str) -> list[Leaf]:
    return [without_component(leaf) for leaf in leaves(config, path)]


def map_other(config: Object, path: str, folder: Path, use: FieldMapping, chosen: Object) -> list[MappedField]:
    """Maps a data configuration that is not trained on: its files are a split if its rows are rendered as those of `chosen`."""
    fields, alike = config_leaves(config, path), {leaf.name: leaf.value for leaf in config_leaves(chosen, "")}
    key = "data.validation_files" if use is VALIDATION else "data.test_files" if use is MEASURED else None
    flat = {leaf.name: leaf.value for leaf in fields}
    if key is None or flat.get("data_files") in (None, alike.get("data_files")):
        return [MappedField(leaf, use) for leaf in fields]
    rules: dict[str, Rule] = {leaf.name: compare(leaf, alike) for leaf in fields}
    rules |= dict.fromkeys(("name", "type", "data_name", "split"), covered(key))
    return map_fields(fields, rules | {"data_files": map_files(flat["data_files"], folder, path, key)}, "")


def compare(leaf: Leaf, others: Mapping[str, Any]) -> FieldMapping:
    """Maps a field of rows that become a split, which matters only if it sets a value."""
    mapping = map_field(leaf, RULES, "")
    if mapping.status is Status.covered:
        return mapping
    return ALIKE if others.get(leaf.name) == leaf.value else DIFFERENT


def other_use(config: Object, users: Users) -> FieldMapping:
    """The mapping of all fields of a data configuration that is not trained on."""
    name = config.get("name")
    if name == users.validation:
        return VALIDATION
    if name in users.evaluation:
        return PROMPTED if "dummy" in str(config.get("type")).lower() else MEASURED
    return CALIBRATION if name in users.other else UNUSED


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


FILES = ("json", "csv", "parquet")  # values of data_name that are file types, not datasets of the Hub


def row_rules(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules for the fields that locate the rows."""
    kind = flat.get("type", "HuggingfaceContainer")
    if str(kind).lower() != "huggingfacecontainer":
        raise InputError(f"{path}.type: must be HuggingfaceContainer, the only supported type, got {kind}")
    if flat.get("data_files.type") == places.DATASTORE:
        return places.row_rules() | file_rules(flat)
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
    place = local(folder, name)
    values: dict[str, Any] = {"data.files": [], "data.path": shown(place)}
    note = ""
    if not place.is_dir() and places.HUB_NAME.fullmatch(name):
        revision = string(flat.get("revision"), f"{path}: revision")
        commit, _ = places.pinned(name, revision, f"{path}: data_name", dataset=True)
        values |= {"data.path": name, "data.revision": commit}
    elif not place.is_dir():
        note = absent(place, "the dataset", "data.path")
    if "split" not in flat:
        values["data.split"] = "validation"  # Olive's default
    return FieldMapping(Status.mapped, f"data.path={values['data.path']}", values, note)


def file_rules(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for the fields next to the name of a file."""
    whole = covered("files are read completely; data.test_size and data.eval_dataset_size split them")
    part = unsupported("files are read completely; data.test_size and data.eval_dataset_size split them")
    split = flat.get("split")
    return {"data_name": covered("from the name of the file"), "split": part if "[" in str(split) else whole}


def map_files(data_files: Any, folder: Path, path: str, key: str = "data.files") -> FieldMapping:
    """Maps local files and addresses to a key that lists them."""
    files = [check_file(file, path) for file in (data_files if isinstance(data_files, list) else [data_files])]
    local_files = {file: local(folder, file) for file in files if not is_remote(file)}
    missing = [place for place in local_files.values() if not exists(place)]
    mapping = mapped_to(key, [shown(local_files[file]) if file in local_files else file for file in files])
    return replace(mapping, note="\n".join(absent(place, "the rows", key) for place in missing))


def check_file(file: Any, path: str) -> str:
    """Returns a path or an address.

    Raises:
        InputError: it is neither, or an address with a secret.
    """
    if not isinstance(file, str) or not file:
        raise InputError(f"{path}: data_files: must be a path or an address, or a list of them, got {file!r}")
    if is_remote(file) and (problem := url_problem(file)):
        raise InputError(f"{path}: data_files: {problem}")
    return file


def split_rules(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules for files by split, of which one is read."""
    split = str(flat.get("split", "train"))
    files = flat.get(f"data_files.{split}")
    if files is None:
        raise InputError(f"{path}: data_files has no split {split}")
    others = [name for name in flat if name.startswith("data_files.") and name != f"data_files.{split}"]
    return file_rules(flat) | {f"data_files.{split}": map_files(files, folder, path)} | dict.fromkeys(others, UNUSED)
