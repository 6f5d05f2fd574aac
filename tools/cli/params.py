"""Composes params.yaml from conf/, and tells a choice from drift.

params.yaml may differ from conf/ for two reasons. Drift: conf/ was edited and nobody composed it again; that is fixed
here. A choice: `dvc exp apply` (or a hand) put other values there; that is kept, and named, until `--reset`.
conf/composed.yaml holds what conf/ alone gave when it was last composed, so the two can be told apart:

    params.yaml == conf/composed.yaml: no choice, so params.yaml follows conf/
    params.yaml != conf/composed.yaml: the keys that differ are the choice; the others follow conf/
"""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tunepress.config.params import Params
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output
from tunepress.core.keys import flatten
from tunepress.core.params import COMPOSED, CONF, PARAMS, compose_conf, read_yaml, typed

ABSENT = "(absent)"
CURE = f"restore it from git, or `make params RESET=1` writes what {CONF}/ gives"

Flat = dict[str, Any]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make params", description="Compose params.yaml from conf/.")
    parser.add_argument("--reset", action="store_true", help="drop a choice: params.yaml becomes what conf/ gives")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if conf/ was not composed")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            sys.exit(check())
        update(arguments.reset)
    except InputError as error:
        sys.exit(str(error))


def check() -> int:
    """Says whether conf/ and params.yaml belong together: 0 yes (a choice is named), 1 drift."""
    if not PARAMS.exists() or not COMPOSED.exists() or compose().encode() != COMPOSED.read_bytes():
        print("params.yaml is stale: conf/ has changed since it was composed; run `make params`", file=sys.stderr)
        return 1
    name_choice(choice(read(PARAMS), read(COMPOSED)))
    return 0


def update(reset: bool) -> None:
    """Writes params.yaml and conf/composed.yaml, keeping a choice unless `reset`."""
    fresh = compose()
    chosen = {} if reset or not PARAMS.exists() else choice(read(PARAMS), read(COMPOSED))
    now = flatten(cast(Flat, OmegaConf.to_container(OmegaConf.create(fresh))))
    chosen = {key: value for key, value in chosen.items() if now.get(key, ABSENT) != value}
    text = with_choice(fresh, chosen)
    for path, content in ((PARAMS, text), (COMPOSED, fresh)):
        if not path.exists() or path.read_bytes() != content.encode():
            with atomic_output(path) as partial:
                partial.write_text(content, encoding="utf-8")
            print(f"{path}: composed from {CONF}/")
    name_choice(chosen)


def compose(overrides: list[str] | None = None) -> str:
    """What conf/ gives, checked against the schema.

    Raises:
        InputError: conf/ does not compose, or a value is missing.
    """
    text = compose_conf(overrides or [])
    typed(Params, cast(DictConfig, OmegaConf.create(text)), f"{CONF}/")
    return text


def read(path: Path) -> Flat:
    """A YAML file as dotted keys; empty if there is none.

    Raises:
        InputError: it is broken or empty.
    """
    if not path.exists():
        return {}
    try:
        tree = read_yaml(path)
    except InputError as error:
        raise InputError(f"{error}; {CURE}") from error
    if not tree:
        raise InputError(f"{path}: is empty; {CURE}")
    return flatten(tree)


def choice(params: Flat, composed: Flat) -> Flat:
    """The keys of params.yaml that differ from what conf/ gave, with their values.

    Raises:
        InputError: params.yaml lacks a whole section, which nobody chooses.
    """
    sections = {key.partition(".")[0] for key in params}
    if absent := [key for key in composed if key.partition(".")[0] not in sections]:
        raise InputError(f"{PARAMS}: no section {absent[0].partition('.')[0]!r}; {CURE}")
    branches = {key[:dot] for key in params for dot in range(len(key)) if key[dot] == "."}
    keys = list(params) + [key for key in composed if key not in params and key not in branches]
    return {key: params.get(key, ABSENT) for key in keys if params.get(key, ABSENT) != composed.get(key, ABSENT)}


def with_choice(fresh: str, chosen: Flat) -> str:
    """What conf/ gives with the chosen values in place."""
    config = OmegaConf.create(fresh)
    for key in [key for key, value in chosen.items() if value == ABSENT]:
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent)
        if node is not None:
            node.pop(name, None)
    for key, value in chosen.items():
        if value != ABSENT:
            OmegaConf.update(config, key, value, force_add=True)
    return OmegaConf.to_yaml(config)


def name_choice(chosen: Flat) -> None:
    """Tells which values are not those of conf/."""
    if chosen:
        values = ", ".join(f"{key}={value}" for key, value in chosen.items())
        print(f"params.yaml: kept your choice {values} (conf/ says otherwise; `make params RESET=1` drops it)")


if __name__ == "__main__":
    main()
