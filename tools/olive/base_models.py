"""The base models that conf/ knows."""

from omegaconf import DictConfig, OmegaConf

from tunepress.core.params import CONF


def base_models() -> dict[str, DictConfig]:
    """What the groups of conf/base_model say, by their names."""
    files = sorted((CONF / "base_model").glob("*.yaml"))
    return {file.stem: DictConfig(OmegaConf.load(file)) for file in files}
