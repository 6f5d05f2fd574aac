"""Registers the schema and the resolvers of conf/ in whichever process composes it.

Hydra imports every module of a `hydra_plugins` package, in DVC's own process too (`hydra.plugins_path` in .dvc/config), so a
wrong key, type or combination of values fails in `dvc exp run -S` before any stage starts.
"""

from hydra.core.config_store import ConfigStore

from tunepress.config import hydra_overrides, resolvers
from tunepress.config.params import Composed

ConfigStore.instance().store(name="tunepress", node=Composed)
resolvers.register()
hydra_overrides.install()
