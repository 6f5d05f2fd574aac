"""Answers that are JSON: whether they match a schema, and in which fields two of them are equal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from tunepress.core.errors import InputError, one_line
from tunepress.core.files import read_json

Schema = dict[str, Any]


def read_schema(file: Path) -> Schema:
    """Reads a JSON schema.

    Raises:
        InputError: the file does not exist, or is not a schema of a draft that jsonschema knows.
    """
    schema = read_json(file)
    if not isinstance(schema, dict):
        raise InputError(f"{file}: must be a JSON schema, an object")
    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise InputError(f"{file}: not a JSON schema ({error.json_path}: {error.message})") from error
    return schema


def validator(schema: Schema) -> Validator:
    """The validator of a schema that `read_schema` has checked, of the draft that its $schema names, otherwise of the latest."""
    return validator_for(schema)(schema)


def parse(text: str) -> Any:
    """The value of a text that is JSON.

    Raises:
        ValueError: it is not, or contains NaN or an infinite number, which JSON has not.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def schema_problem(text: str, schema: Validator) -> str | None:
    """Why a text does not match a schema, in one line; None if it does."""
    try:
        value = parse(text)
    except ValueError as error:
        return f"is not JSON ({one_line(error)})"
    worst = best_match(schema.iter_errors(value))
    return f"does not match data.json_schema ({worst.json_path}: {one_line(worst)})" if worst else None


def canonical(text: str) -> str:
    """JSON with sorted keys in which 1.0 is 1, so that equal values are equal texts; other text without white space around it."""
    try:
        value = parse(text)
    except ValueError:
        return text.strip()
    return json.dumps(_normal(value), sort_keys=True, ensure_ascii=False)


def fields(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """The values in an object with their JSON pointers (RFC 6901), through nested objects. A list is one value."""
    if not isinstance(value, dict) or not value:
        yield pointer, value
        return
    for key, child in value.items():
        yield from fields(child, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal(child) for key, child in value.items()}
    if isinstance(value, list):
        return list(map(_normal, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
