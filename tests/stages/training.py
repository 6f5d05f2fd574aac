"""A small training, for the tests of what `stages.train` does: rows, sections and what came out."""

import csv
import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from omegaconf import OmegaConf

from stages.train import stage as train
from tests.stages import outputs
from tunepress.config import checks
from tunepress.core.errors import InputError
from tunepress.core.paths import ADAPTER, BASE, LOSS_CURVES, METRICS, PREPARED
from tunepress.text.segments import context, learned

WEIGHTS, CONFIG = ADAPTER / "adapter_model.safetensors", ADAPTER / "adapter_config.json"
TONES = ("joy", "fear", "surprise")
SHORT = {  # four steps an epoch, whatever the default recipe becomes
    "num_train_epochs": 1,
    "max_steps": -1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 2,
}


def new_repo(folder: Path) -> None:
    """Makes a git repo with a commit, and a DVC repo, as DVCLive needs them."""
    for command in (
        ["git", "init", "--quiet"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    Repo.init(str(folder)).close()


def new_project(folder: Path, base: Path) -> Path:
    """Makes a project with a base model in `folder`; returns data/prepared."""
    new_repo(folder)
    (folder / BASE).parent.mkdir()
    (folder / BASE).symlink_to(base)
    prepared = folder / PREPARED
    prepared.mkdir(parents=True)
    return prepared


def row(number: int, name: str) -> dict[str, Any]:
    """A prepared row, in a sequence of its own."""
    tone = TONES[number % 3]
    prompt = f"Text: {'so ' * (number % 5)}{tone[:2]} of {name} {number}\nTone: "
    return {"source": f"{name} row {number}", "segments": [context(prompt), learned(tone, tone)], "sequence": number}


@functools.cache
def default_config(root: Path) -> Any:
    files = {"adapter": root / "conf/adapter/lora.yaml", "train": root / "conf/train/default.yaml"}
    return OmegaConf.merge(OmegaConf.structured(train.Config), {name: OmegaConf.load(file) for name, file in files.items()})


def sections(root: Path, seed: int = 0, adapter: dict[str, Any] | None = None, **settings: Any) -> train.Config:
    """The default recipe on SHORT, with some values of `adapter` and of `train` changed."""
    changed = {"seed": seed, "adapter": {"r": 4} | (adapter or {}), "train": SHORT | settings}
    cfg = OmegaConf.to_object(OmegaConf.merge(default_config(root), changed))
    assert isinstance(cfg, train.Config)
    return cfg


def hashes() -> dict[str, str]:
    """Of the adapter's files, by name."""
    return outputs.hashes(ADAPTER)


def curve(name: str) -> dict[int, float]:
    """A loss curve as DVCLive wrote it, by step."""
    path = LOSS_CURVES / f"{name}.tsv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {int(line["step"]): float(line[path.stem]) for line in csv.DictReader(file, delimiter="\t")}


def metrics() -> Any:
    """What training measured."""
    return json.loads((METRICS / "train.json").read_text(encoding="utf-8"))


def refusal(cfg: train.Config) -> str:
    """The one line with which the rules or the stage refuse a configuration."""
    if problem := checks.problem(vars(cfg)):
        return problem
    with pytest.raises(InputError) as refused:
        train.main(cfg)
    assert "\n" not in str(refused.value)
    return str(refused.value)
