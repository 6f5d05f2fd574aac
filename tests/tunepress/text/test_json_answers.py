"""Answers in JSON: what a schema accepts, when two are equal, and which fields they have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tunepress.core.errors import InputError
from tunepress.text.json_answers import canonical, fields, parse, read_schema, schema_problem, validator

ORDER = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"count": 2}', None),
        (' {"count":2.0}\n', None),
        ('{"count": "2"}', "does not match data.json_schema ($.count: '2' is not of type 'integer'"),
        ('{"number": 2}', "does not match data.json_schema ($: "),
        ('{"count": 2', "is not JSON ("),
        ('{"count": NaN}', "is not JSON (NaN is not JSON)"),
        ("[" * 100_000, "is not JSON (is nested too deeply)"),
        ("", "is not JSON ("),
    ],
)
def test_an_answer_matches_the_schema_or_the_problem_says_where_it_does_not(text: str, problem: str | None) -> None:
    actual = schema_problem(text, validator(ORDER))
    assert actual == problem if problem is None else actual is not None and actual.startswith(problem)
    assert "\n" not in (actual or "")


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ('{"a": 1, "b": "x"}', '{ "b":"x","a":1.0 }', True),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ('{"a": "ü"}', '{"a": "\\u00fc"}', True),
        (" no JSON\n", "no JSON", True),
    ],
)
def test_texts_are_equal_in_canonical_form_if_their_values_are(first: str, second: str, equal: bool) -> None:
    assert (canonical(first) == canonical(second)) is equal
    assert canonical(canonical(first)) == canonical(first)


def test_fields_have_json_pointers_and_a_list_is_a_single_one() -> None:
    value = {"name": "A", "address": {"city": "B", "a/b~c": None}, "items": [{"x": 1}], "empty": {}}
    assert dict(fields(value)) == {
        "/name": "A",
        "/address/city": "B",
        "/address/a~1b~0c": None,
        "/items": [{"x": 1}],
        "/empty": {},
    }
    assert dict(fields(3)) == {"": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must be a JSON schema, an object"),
        (
            {"type": "number of things"},
            "not a JSON schema ($.type: 'number of things' is not valid under any of the given schemas)",
        ),
    ],
)
def test_a_file_that_is_not_a_schema_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(f"{file}: {message}")):
        read_schema(file)


def test_a_schema_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found"):
        read_schema(tmp_path / "schema.json")


def test_a_value_is_read_as_json_has_it() -> None:
    assert parse('{"a": 1e2}') == {"a": 100.0}
