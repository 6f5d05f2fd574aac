"""params.yaml in, typed sections out, and errors that name the key."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tunepress.config.data import Data, Overlong
from tunepress.core.errors import InputError
from tunepress.core.params import load

PARAMS = """\
data:
  files: [a.jsonl]
  datasets: []
  validation_files: []
  test_files: []
  calibration_files: []
  path: null
  name: null
  revision: null
  split: null
  format: null
  text_template: "{phrase} ${data.completion_column}"
  completion_column: tone
  use_chat_template: false
  field_messages: null
  message_property_mappings: null
  roles: null
  train_on: all
  roles_to_train: [assistant]
  chat_template: null
  chat_template_kwargs: {}
  labels: null
  json_schema: null
  source_max_len: 256
  overlong: drop
  corpus_strategy: line-by-line
  max_samples: null
  max_validation_samples: null
  max_test_samples: null
  pad_to_max_len: false
  use_attention_mask: true
  eval_dataset_size: 0.1
  test_size: 0.25
  near_duplicates: null
other:
  anything: goes
seed: 3
"""


@dataclass
class Config:
    data: Data
    seed: int


@dataclass
class Seed:
    seed: int


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS, encoding="utf-8")
    return path


def edit(params: Path, old: str, new: str) -> None:
    content = params.read_text(encoding="utf-8")
    assert old in content
    params.write_text(content.replace(old, new), encoding="utf-8")


def refused(params: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as raised:
        load(Config, list(overrides), params)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(params))
    return message


def test_sections_come_with_their_types(params: Path) -> None:
    sections = load(Config, [], params)
    assert isinstance(sections.data, Data)
    assert sections.data.overlong is Overlong.drop
    assert (sections.data.files, sections.data.labels, sections.seed) == (["a.jsonl"], None, 3)
    assert sections.data.text_template == "{phrase} tone"


def test_overrides_come_after_the_file(params: Path) -> None:
    overrides = ["data.source_max_len=8", "data.labels=[joy,fear]", "data.overlong=truncate", "seed=9", "data.test_size=5e-1"]
    sections = load(Config, overrides, params)
    assert (sections.data.source_max_len, sections.data.labels, sections.data.overlong) == (8, ["joy", "fear"], Overlong.truncate)
    assert (sections.seed, sections.data.test_size) == (9, 0.5)
    assert load(Config, [], params).seed == 3


@pytest.mark.parametrize("name", ["files", "validation_files", "test_files"])
def test_a_single_path_is_a_list_of_one(params: Path, name: str) -> None:
    assert getattr(load(Config, [f"data.{name}=b.jsonl"], params).data, name) == ["b.jsonl"]
    assert getattr(load(Config, [f"data.{name}=null", "data.path=someone/rows"], params).data, name) == []


@pytest.mark.parametrize("other", ["other: 3", "other:\n  broken: ${nowhere}", "other: {deep: [1, {a: '???'}]}", "other: ???"])
def test_keys_of_other_sections_are_not_looked_at(params: Path, other: str) -> None:
    edit(params, "other:\n  anything: goes", other)
    assert load(Config, [], params).seed == 3
    assert load(Seed, [], params) == Seed(3)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.source_max_len", "data.source_max_len"),
        ("data.labels=[joy", "[joy"),
        ("data.source_max_le=8", "data.source_max_le"),
        ("no_such_section.x=1", "no_such_section"),
    ],
)
def test_a_wrong_override_is_shown(params: Path, override: str, says: str) -> None:
    assert says in refused(params, override)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("source_max_length", "source_max_len"),
        ("test_sise", "test_size"),
        ("text_tempalte", "text_template"),
        ("label", "labels"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_one(params: Path, key: str, nearest: str) -> None:
    expected = f"{params}: unknown key data.{key}; did you mean data.{nearest}?"
    assert refused(params, f"+data.{key}=1") == expected
    edit(params, "  test_size:", f"  {key}: 1\n  test_size:")
    assert refused(params) == expected


def test_an_unknown_key_like_no_other_comes_with_all_keys(params: Path) -> None:
    message = refused(params, "+data.zzzz=1")
    assert "unknown key data.zzzz; known here: files, datasets, validation_files, test_files, " in message


@pytest.mark.parametrize(
    "override",
    [
        "data.source_max_len=long",
        "data.source_max_len=2.5",
        "data.source_max_len=null",
        "data.eval_dataset_size=some",
        "data.use_chat_template=perhaps",
        "data.overlong=shorten",
        "data.files=3",
        "data.test_files=[a.jsonl,{b:1}]",
        "data.labels={joy:1}",
        "data.completion_column=[tone]",
        "seed=x",
        "data=3",
    ],
)
def test_a_wrong_type_is_told_with_the_full_key(params: Path, override: str) -> None:
    message = refused(params, override).removeprefix(f"{params}: ")
    assert message.startswith(f"{override.split('=')[0]}: ")


@pytest.mark.parametrize("key", ["data.source_max_len", "data.files"])
def test_a_value_that_is_missing_or_left_out_is_named(params: Path, key: str) -> None:
    assert f"{key} has no value" in refused(params, f"{key}=???")
    assert f"{key} has no value" in refused(params, f"~{key}")


def test_a_top_level_value_that_is_missing_is_named(params: Path) -> None:
    assert "seed" in refused(params, "seed=???")


def test_an_interpolation_that_leads_nowhere_is_told_with_its_key(params: Path) -> None:
    edit(params, "name: null", "name: ${nowhere}")
    assert f"{params}: data.name: " in refused(params)


@pytest.mark.parametrize(("section", "old"), [("data", "data:"), ("seed", "seed:")])
def test_a_missing_section_is_named(params: Path, section: str, old: str) -> None:
    edit(params, old, "renamed:")
    if section == "data":
        edit(params, "${data.completion_column}", "tone")
    assert refused(params) == f"{params}: no section {section!r}"


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    assert "not found" in refused(tmp_path / "params.yaml")
    assert "make params" in refused(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "content", ["", "- a\n- b\n", "just words\n", "seed: [1\n", "data:\n\tfiles: []\n", "seed: 1\nseed: 2\n", "seed: '\n"]
)
def test_a_file_that_is_no_mapping_of_sections_is_named(params: Path, content: str) -> None:
    params.write_text(content, encoding="utf-8")
    refused(params)
