"""The contenders of benchmarks/train.py: how each is started, in a folder laid out like the project."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT, Usage, environment, read_json, run
from benchmarks.peer_environment import peer_python
from tunepress.core.files import write_json
from tunepress.core.paths import ADAPTER, BASE, MERGED, PREPARED

JOINED_TOKENS = 512  # of an example that Olive joins, as in its own examples
SAME_ARGUMENTS = (  # fields of `train` in params.yaml that the peers' Trainer gets too
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
    """What all contenders are given.

    Attributes:
        scratch: a temporary folder, with the rows that benchmarks/recipe.py wrote.
        params: the project's params.yaml.
        recipe: what benchmarks/recipe.py reported.
        steps: ends the training early, or None.
    """

    scratch: Path
    params: dict[str, Any]
    recipe: dict[str, Any]
    steps: int | None

    @property
    def max_steps(self) -> int:
        """As the Trainer takes it: -1 for all epochs."""
        return self.steps or int(self.params["train"]["max_steps"])


def workspace(scratch: Path, name: str) -> Path:
    """A folder laid out like the project, with links to what is only read."""
    folder = scratch / name
    for part in (BASE, PREPARED, Path("conf"), Path("params.yaml")):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(ROOT / part)
    return folder


def train(name: str, setting: Setting, window: tuple[int, int] | None = None) -> tuple[Path, Usage, dict[str, Any]]:
    """Lets one contender train.

    Args:
        name: of TITLES.
        setting: what all are given.
        window: steps to profile, the first and the one after the last.

    Returns:
        Its folder, what its process took, and what benchmarks/timed.py reported.
    """
    folder = workspace(setting.scratch, name)
    if name == "tunepress":
        make_repository(folder, environment(setting.scratch, kernels=False))
        python = Path(sys.executable)
        arguments = ["stages.train", f"train.max_steps={setting.max_steps}"]
    else:
        olive = name.startswith("olive")
        python = peer_python("olive", setting.scratch) if olive else Path(sys.executable)
        write_json(folder / "job.json", job(name, folder, setting))
        arguments = ["benchmarks.olive_train" if olive else "benchmarks.plain_trainer", "job.json"]
    profile = ["--profile", *map(str, window)] if window else []
    variables = environment(setting.scratch, kernels=name == "tunepress")
    usage = run(name, folder, variables, python, "-m", "benchmarks.timed", *profile, "timed.json", *arguments)
    return folder, usage, read_json(folder / "timed.json")


def make_repository(folder: Path, variables: dict[str, str]) -> None:
    """A git repository with a commit, which DVCLive wants."""
    run("git", folder, variables, "git", "init", "--quiet")
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgsign=false")
    run("git", folder, variables, "git", *author, "commit", "--quiet", "--allow-empty", "--message=empty")


def job(name: str, folder: Path, setting: Setting) -> dict[str, Any]:
    """What plain_trainer.py and olive_train.py are to do, the same but for the size of Olive's joined batches."""
    given = dict(setting.params["adapter"])
    if given["target_modules"] == "all-linear":  # Olive takes names only
        given["target_modules"] = setting.recipe["linear_modules"]
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
        "adapter": given,
        "training_arguments": arguments,
        "gradient_checkpointing": name == "olive-checkpointing",
        "strategy": "join" if joined else "line-by-line",
        "max_seq_len": JOINED_TOKENS,
    }


def score(folder: Path, setting: Setting) -> dict[str, Any]:
    """Right answers of the adapter that was trained in `folder`."""
    variables = environment(setting.scratch, kernels=True)
    run(f"{folder.name}'s accuracy", folder, variables, sys.executable, "-m", "benchmarks.score", "score.json")
    shutil.rmtree(folder / MERGED)  # half a gigabyte each
    return read_json(folder / "score.json")
