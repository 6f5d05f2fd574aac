"""The contenders of benchmarks.train: how each is started, in a folder laid out like the project."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Figures, Usage, call, environment, make_repository, peer_python, run, workspace
from tunepress.core.files import read_json, write_json
from tunepress.core.paths import ADAPTER, BASE, MERGED, PREPARED

JOINED_TOKENS = 512  # of an example that Olive joins, as in its own examples
SAME_ARGUMENTS = (  # fields of `train` in params.yaml that the other tools' Trainer gets too
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "max_steps",
    "data_seed",
    "train_sampling_strategy",
)
TITLES = {
    "tunepress": "Tunepress, python -m stages.train",
    "trainer": "transformers Trainer, padded",
    "olive": f"Olive LoRA, join {JOINED_TOKENS}",
    "olive-checkpointing": f"Olive LoRA, join {JOINED_TOKENS}, checkpointing",
    "olive-lines": "Olive LoRA, line-by-line",
}


@dataclass(frozen=True)
class Setting:
    """What all contenders get."""

    scratch: Path  # a temporary folder, with the rows that train/inputs.py wrote
    params: dict[str, Any]  # the project's params.yaml
    recipe: Figures  # what train/inputs.py reported
    steps: int | None  # after which the training ends early

    @property
    def max_steps(self) -> int:
        """As the Trainer takes it: -1 for all epochs."""
        return self.steps or int(self.params["train"]["max_steps"])


def project(folder: Path) -> Path:
    """A folder laid out like the project, with what training reads."""
    return workspace(folder, BASE, PREPARED, "conf", "params.yaml")


def train(name: str, setting: Setting, window: tuple[int, int] | None = None) -> tuple[Path, Usage, Figures]:
    """Lets one contender train.

    Args:
        name: of TITLES.
        setting: what all are given.
        window: steps to profile, the first and the one after the last.

    Returns:
        Its folder, what its process used, and what train/timed.py reported.
    """
    folder = project(setting.scratch / name)
    python = Path(sys.executable)
    if name == "tunepress":
        make_repository(folder, environment(setting.scratch, kernels=False))
        arguments = ["stages.train", f"train.max_steps={setting.max_steps}"]
    else:
        olive = name.startswith("olive")
        python = peer_python("olive", setting.scratch) if olive else python
        write_json(folder / "job.json", job(name, folder, setting))
        arguments = [f"benchmarks.train.{'olive_pass' if olive else 'plain_trainer'}", "job.json"]
    profile = ["--profile", *map(str, window)] if window else []
    variables = environment(setting.scratch, kernels=name == "tunepress")
    usage = run(name, folder, variables, python, "-m", "benchmarks.train.timed", *profile, "timed.json", *arguments)
    return folder, usage, read_json(folder / "timed.json")


def job(name: str, folder: Path, setting: Setting) -> dict[str, Any]:
    """What plain_trainer.py and olive_pass.py read; the same for both except for the size of Olive's joined batches."""
    adapter = dict(setting.params["adapter"])
    if adapter["target_modules"] == "all-linear":  # Olive takes only names
        adapter["target_modules"] = setting.recipe["linear_modules"]
    arguments = {field: setting.params["train"][field] for field in SAME_ARGUMENTS} | {"max_steps": setting.max_steps}
    joined = name in ("olive", "olive-checkpointing")
    if joined:
        tokens = arguments["per_device_train_batch_size"] * setting.recipe["row_tokens"] / setting.recipe["rows"]
        arguments["per_device_train_batch_size"] = max(1, round(tokens / JOINED_TOKENS))
    return {
        "model": str((ROOT / BASE).resolve()),
        "output": str(folder / ADAPTER),
        "rows": str(setting.scratch / "rows.jsonl"),
        "texts": str(setting.scratch / "texts.jsonl"),
        "seed": setting.params["seed"],
        "adapter": adapter,
        "training_arguments": arguments,
        "gradient_checkpointing": name == "olive-checkpointing",
        "strategy": "join" if joined else "line-by-line",
        "max_seq_len": JOINED_TOKENS,
    }


def score(folder: Path) -> Figures:
    """Right answers of the adapter that was trained in `folder`."""
    figures, _ = call("benchmarks.score:adapter", folder, kernels=True, title=f"{folder.name}'s accuracy")
    shutil.rmtree(folder / MERGED)  # half a gigabyte each
    return figures
