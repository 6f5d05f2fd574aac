"""`data_configs`: the rows, how they become text, and how they are split."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.olive.document import Leaf, Object, leaves, section
from tools.olive.fate import Line, Rule, Value, only, otherwise, refused, ruled, taken, to
from tools.olive.rows import UNUSED, rows
from tools.olive.texts import texts
from tunepress.core.errors import InputError
from tunepress.remote.addresses import is_remote

# Levels of the two generations: what a name says is enough, but for `type`, which each has.
COMPONENTS = {
    "load_dataset_config": "load_dataset",
    "pre_process_data_config": "pre_process",
    "pre_process_data": "pre_process",
    "post_process_data_config": "post_process",
    "dataloader_config": "dataloader",
}
READ = ("load_dataset", "pre_process")
NO_CODE = refused("no Python beside the configuration is run; write the rows as JSON lines")
RULES: dict[str, Rule] = {
    "name": otherwise("an experiment has one section `data`"),
    "type": otherwise("data.files or data.path"),
    "user_script": NO_CODE,
    "script_dir": NO_CODE,
    "text_formatting_func": NO_CODE,
    "load_dataset.type": only("huggingface_dataset", "data.files or data.path", "rows are read as they are, by no code"),
    "pre_process.type": only("text_generation_huggingface_pre_process", "prepare fills data.text_template", "no other task"),
    "token": otherwise("the Hub's client takes HF_TOKEN"),
    "trust_remote_code": otherwise("a dataset's code is never run"),
    "model_name": otherwise("the tokenizer is the base model's"),
    "task": only("text-generation", "the only task there is", "only text is generated here"),
    "dataset_type": only("corpus", "data.text_template makes a text of each row", "write a data.text_template instead"),
    "text_cols": otherwise("data.text_template names the columns"),
    "source_max_len": to("data.source_max_len"),
    "max_seq_len": to("data.source_max_len"),
    "pad_to_max_len": to("data.pad_to_max_len"),
    "use_attention_mask": to("data.use_attention_mask"),
    "max_samples": to("data.max_samples"),
    "add_special_tokens": only(True, "prepare adds them", "a text's begin and end are always marked, or the answer had no end"),
    "drop_short_sequences": only(False, "a sequence of any length is learned", "a sequence of any length is learned"),
    "padding_side": otherwise("examples stand in one row without padding"),
    "joiner": otherwise("joined rows stand end to end, each with its own begin and end"),
    "processing_batch_size": otherwise("all rows are tokenized in one go"),
    "random_seed": otherwise("the seed of the experiment"),
    "random_retries": otherwise("joined rows always fit"),
    "chat_template": lambda value: taken("data.use_chat_template", value) if isinstance(value, bool) else refused(
        "the base model's own chat template, or none"
    ),
    "message_col": refused("rows are a prompt and its answer, no lists of messages"),
    "stride": refused("sequences do not overlap"),
}  # fmt: skip
UNKNOWN = "prepare has nothing like it"
VALIDATION = refused("validation rows are a share of the training rows, data.eval_dataset_size")
MEASURED = refused("the rows that evaluate sees are data.test_size or data.test_files")


@dataclass(frozen=True)
class Users:
    """The names of data configurations by what they are for: training, validation while it trains."""

    training: str | None
    validation: str | None
    evaluation: tuple[str, ...]


def parts(given: Any, users: Users, folder: Path) -> tuple[list[Line], list[Value]]:
    """The fate of each field of `data_configs`, and the values that come of none.

    Args:
        given: that section, a list or, in the older generation, an object.
        users: which is used for what.
        folder: of the configuration, from which its paths start.

    Raises:
        InputError: there is none for the training, or its rows are not there.
    """
    configs = named(given)
    chosen = choose(configs, users.training)
    lines: list[Line] = []
    values: list[Value] = []
    for path, config in configs.items():
        fields = [plain(leaf) for leaf in leaves(config, path)]
        if path == chosen:
            flat = {leaf.name: leaf.value for leaf in fields}
            rules = RULES | rows(flat, folder, path) | texts(flat, path)
            lines += ruled(fields, rules, UNKNOWN)
            values += derived(lines)
        else:
            name = config.get("name")
            fate = VALIDATION if name == users.validation else MEASURED if name in users.evaluation else UNUSED
            lines += [Line(leaf, fate) for leaf in fields]
    return lines, values


def named(given: Any) -> dict[str, Object]:
    """The data configurations by their place."""
    if isinstance(given, list):
        return {f"data_configs[{number}]": section(one, f"data_configs[{number}]") for number, one in enumerate(given)}
    objects = section(given, "data_configs")
    return {f"data_configs.{name}": section(one, f"data_configs.{name}") for name, one in objects.items()}


def choose(configs: Mapping[str, Object], name: str | None) -> str:
    """The place of the one with this name, or of the only one, which Olive's own documents name in several ways."""
    matching = [path for path, one in configs.items() if name in (one.get("name"), path.removeprefix("data_configs."))]
    if matching or len(configs) == 1 or name is None:
        return (matching or list(configs))[0]
    raise InputError(
        f"train_data_config: {name} is none of data_configs ({', '.join(str(c.get('name')) for c in configs.values())})"
    )


def plain(leaf: Leaf) -> Leaf:
    """A field by its own name."""
    names = [COMPONENTS.get(name, name) for name in leaf.name.split(".") if name != "components"]
    if names[0] in READ and names[1:] != ["type"]:
        names = names[1:]
    return Leaf(leaf.path, ".".join(names), leaf.value)


def derived(lines: list[Line]) -> list[Value]:
    """What follows from the rows' fields, and stands in none."""
    given = {key: value for line in lines for key, value in line.fate.values.items()}
    labels = labels_of(given.get("data.files") or [], given["data.completion_column"])
    why = "the answers in the file; null for free text" if labels else "free text; name the answers of a classification here"
    whole = Value("train.completion_only_loss", False, "Olive learns the prompt too")
    return [Value("data.labels", labels, why), whole]


def labels_of(paths: list[str], column: str) -> list[str] | None:
    """The answers of a classification: few, and each given often."""
    if not paths or any(map(is_remote, paths)):
        return None
    from stages.prepare.rows import read_files

    answers = Counter(row.values[column].strip() for row in read_files(paths, [column]))
    classes = 2 <= len(answers) <= 20 and min(answers.values()) >= 10
    if classes and any("${" in answer for answer in answers):  # OmegaConf would put a variable's value in its place
        raise InputError(f"{paths[0]}: a label has ${{, which a configuration takes for a variable; rename it in the rows")
    return sorted(answers) if classes else None
