"""Reads params.yaml as typed configuration, and composes it from conf/."""

import dataclasses
import importlib
import re
import sys
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from tunepress.core.errors import InputError, one_line
from tunepress.core.keys import unknown_key

PARAMS = Path("params.yaml")
CONF = Path("conf")
COMPOSED = CONF / "composed.yaml"  # what conf/ alone gave when params.yaml was last composed

ConfigT = TypeVar("ConfigT")


def load(config_class: type[ConfigT], overrides: list[str], params: Path = PARAMS) -> ConfigT:
    """Reads the top-level keys of params.yaml that `config_class` has as fields, with their types checked.

    Args:
        config_class: a dataclass whose fields are named like top-level keys of params.yaml.
        overrides: Hydra overrides such as `train.learning_rate=1e-4`, applied to params.yaml.
        params: another file in its place.

    Raises:
        InputError: no params.yaml, a wrong override, key, type or combination of values, or a missing value.
    """
    if not params.exists():
        raise InputError(f"{params}: not found; run stages from the project's root, after `make params`")
    read_yaml(params)
    try:
        with initialize_config_dir(str(params.parent.resolve()), version_base="1.3"):
            composed = compose(params.stem, overrides)
    except HydraException as error:
        message = one_line(error)
        hint = "" if "unknown key" in message else " (groups such as base_model=... go to `dvc exp run -S`)"
        raise InputError(f"{params}: {message}{hint}") from error
    config = typed(config_class, composed, str(params))
    # Imported by name: a rule only refuses and changes no output, so no stage depends on it in DVC's eyes.
    checks = importlib.import_module("tunepress.config.checks")
    if problem := checks.problem(vars(config)):
        raise InputError(f"{params}: {problem}")
    return config


def compose_conf(overrides: list[str]) -> str:
    """What conf/ gives, in the very bytes that `dvc exp run` would write to params.yaml.

    Raises:
        InputError: conf/ does not compose.
    """
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base=None):
            config = compose("config", overrides)
        OmegaConf.resolve(config)
    except MissingConfigException as error:  # of several kinds, OSError too
        raise InputError(f"{CONF}/: {composing(error)}") from error
    except (YAMLError, UnicodeError, OSError) as error:  # the last is OmegaConf's for a file that holds a number
        for file in sorted(CONF.rglob("*.yaml")):
            read_yaml(file)
        raise InputError(f"{CONF}/: {one_line(error)}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last of Hydra's own for `group=null`
        cause = f" (overrides: {' '.join(overrides)})" if type(error) is ValueError else ""
        raise InputError(f"{CONF}/: {composing(error)}{cause}") from error
    return OmegaConf.to_yaml(config)


def compose_typed(config_class: type[ConfigT], overrides: list[str]) -> ConfigT:
    """Composes conf/ and checks the result against the dataclass `config_class`.

    Raises:
        InputError: conf/ does not compose, or does not match the schema.
    """
    return typed(config_class, cast(DictConfig, OmegaConf.create(compose_conf(overrides))), f"{CONF}/")


def composing(error: Exception) -> str:
    """What Hydra says does not compose: in which file, what, at which key; or the options that there are."""
    _, of_resolver, message = str(error).partition("InputError raised while resolving interpolation: ")
    if of_resolver:
        return message.splitlines()[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first_option = next((number for number, line in enumerate(lines, 1) if line.startswith("Available options")), None)
    if first_option is None:
        return " ".join(lines[:3])
    options = list(takewhile(lambda line: not line.startswith("Config search path"), lines[first_option:]))
    return " ".join([*lines[:first_option], ", ".join(options)])


def warn_if_stale() -> None:
    """Says so where conf/ was edited and params.yaml still holds what it gave before; a choice of other values is not stale."""
    if COMPOSED.exists() and PARAMS.exists():
        params = PARAMS.read_bytes()
        if params == COMPOSED.read_bytes() and params != compose_conf([]).encode():
            print(f"{PARAMS} is stale: {CONF}/ has changed since it was composed; run `make params`", file=sys.stderr)


def typed(config_class: type[ConfigT], config: DictConfig, source: str) -> ConfigT:
    """Checks `config` against the dataclass `config_class` and makes one of it; other groups are ignored.

    Raises:
        InputError: an unknown key, a wrong type, a missing section or value, each with its full name.
    """
    names = [field.name for field in dataclasses.fields(cast(Any, config_class))]
    absent = [name for name in names if name not in config]
    if absent:
        raise InputError(f"{source}: no section {absent[0]!r}")
    try:
        checked, where = OmegaConf.structured(config_class), ""
        for name in names:
            section = config[name]
            value = OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
            for key, part in value.items() if isinstance(value, dict) else [(None, value)]:
                where = f"{name}.{key!s}" if key else name  # one key at a time, so that the error can say where it was
                checked.merge_with({name: {key: part} if key else part})
    except ConfigKeyError as error:
        known = [field.name for field in dataclasses.fields(error.object_type)] if error.object_type else names
        raise InputError(f"{source}: {unknown_key(str(error.full_key), known)}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{source}: {error.full_key or where}: {one_line(error)}") from error
    missing = sorted(OmegaConf.missing_keys(checked))
    if missing:
        raise InputError(f"{source}: {missing[0]} has no value; set it in conf/ or with -S {missing[0]}=...")
    return cast(ConfigT, OmegaConf.to_object(checked))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; an empty mapping where the file is empty.

    Raises:
        InputError: it is something else, with the line where that is known.
    """
    content = path.read_bytes()
    try:
        text = content.decode()
        if conflict := re.search("^<{7} ", text, flags=re.MULTILINE):
            raise InputError(f"{path} line {line_of(text, conflict.start())}: a merge conflict that is not resolved")
        tree = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise InputError(f"{path} line {line_of(before, len(before))}: not UTF-8") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else line_of(text, getattr(error, "position", 0))
        raise InputError(f"{path} line {line}: not YAML ({getattr(error, 'problem', None) or one_line(error)})") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {error.full_key or 'top level'}: {one_line(error)}") from error
    except OSError as error:  # OmegaConf's own, for a single number
        raise InputError(f"{path}: must be a mapping of keys to values ({error})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be a mapping of keys to values, got a list")
    return cast(dict[str, Any], tree)


def line_of(text: str, position: int) -> int:
    """The number of the line that has the character at a position."""
    return text.count("\n", 0, position) + 1
