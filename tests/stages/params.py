"""params.yaml of a test's own project."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CPU = {"environment": {"lock": "requirements/cpu.txt"}}


def write_params(sections: Any, folder: Path = Path()) -> None:
    """Writes the sections that a stage reads, and the environment that every stage looks at."""
    OmegaConf.save(OmegaConf.merge(CPU, OmegaConf.to_container(OmegaConf.structured(sections))), folder / "params.yaml")
