"""params.yaml of a test's own project."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tunepress.config.data import Data

ROOT = Path(__file__).parents[2]
CPU = {"environment": {"lock": "requirements/cpu.txt"}}


def write_params(sections: Any, folder: Path = Path()) -> None:
    """Writes the sections that a stage reads, and the environment that every stage looks at."""
    OmegaConf.save(OmegaConf.merge(CPU, OmegaConf.to_container(OmegaConf.structured(sections))), folder / "params.yaml")


def data_of(**settings: Any) -> Data:
    """conf/data/tone.yaml without its template and labels, and with `settings`."""
    plain = {"text_template": None, "labels": None}
    section = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load("conf/data/tone.yaml"), plain, settings)
    )
    assert isinstance(section, Data)
    return section
