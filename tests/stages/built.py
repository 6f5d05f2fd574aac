"""Models that the stage build made, for the tests of what it checks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.build.stage import build
from tunepress.config.build import Build
from tunepress.core.files import read_json, write_json
from tunepress.inference.genai_config import GenaiConfig
from tunepress.text.prompt import Prompt

PROMPT = Prompt("Text: {phrase}\nTone: ", "{tone}", None, source_max_len=100, max_new_tokens=8)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"tone": {"enum": ["joy", "fear"]}, "loud": {"type": "boolean"}},
    "required": ["tone", "loud"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},  # a random model may write nothing but white space
}


def built(chosen: Build, merged: Path, folder: Path) -> Path:
    """A model folder as the stage makes it, with its prompt."""
    build(chosen, merged, folder)
    PROMPT.save(folder)
    return folder


def settings(folder: Path, change: Callable[[dict[str, Any]], None]) -> GenaiConfig:
    """genai_config.json of a folder, after a change of its section model."""
    content = read_json(folder / "genai_config.json")
    change(content["model"])
    write_json(folder / "genai_config.json", content)
    return GenaiConfig.read(folder)
