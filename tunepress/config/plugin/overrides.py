r"""What `dvc exp run -S` and our own commands understand beyond Hydra's overrides.

- An unknown key is refused with the key that could be meant. Hydra would suggest to add it with a plus.
- In `data.text_template="a\nb"` the \n is a line break, as in YAML. Hydra unescapes only quotes.

Hydra 1.3 has no public hook between the overrides and the configuration, so this wraps a private function of Hydra, the one that
DVC calls too; tests/test_private_api.py lists it.
"""

import re
from dataclasses import replace

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from tunepress.config.params import key_problem

ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def install() -> None:
    """Wraps Hydra's function in this process. Hydra 1.3 runs a plugin's module twice, so a second call does nothing."""
    original = ConfigLoaderImpl._apply_overrides_to_config
    if getattr(original, "of_tunepress", False):
        return

    def apply_overrides(overrides: list[Override], cfg: DictConfig) -> None:
        for override in overrides:
            refuse_unknown_key(override)
        original([with_line_breaks(override) for override in overrides], cfg)

    vars(apply_overrides)["of_tunepress"] = True
    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply_overrides)  # type: ignore[method-assign]


def refuse_unknown_key(override: Override) -> None:
    key = override.key_or_group
    if override.package is None and "@" not in key and not key.startswith("hydra") and (wrong := key_problem(key)):
        raise ConfigCompositionException(wrong)


def with_line_breaks(override: Override) -> Override:
    r"""The override of a template with \n, \t and \\ unescaped."""
    value = override.value()
    if override.key_or_group != "data.text_template" or not isinstance(value, str):
        return override
    return replace(override, _value=re.sub(r"\\([nt\\])", lambda match: ESCAPES[match[1]], value))
