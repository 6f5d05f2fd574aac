"""Registers the schema and the resolvers of conf/ in whichever process composes it.

Hydra imports every module of a `hydra_plugins` package, in DVC's own process too (`hydra.plugins_path` in .dvc/config), so a
wrong key, type or combination of values fails in `dvc exp run -S` before any stage starts.
"""

from hydra.core.config_store import ConfigStore

from tunepress.config.params import Composed
from tunepress.config.plugin import overrides, resolvers

ConfigStore.instance().store(name="tunepress", node=Composed)
resolvers.register()
overrides.install()
