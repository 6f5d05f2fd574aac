"""Loss curves in DVCLive's files, for `dvc plots`."""

import tempfile
from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

CURVES = {"loss": "train/loss", "eval_loss": "eval/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


class LossCurves(TrainerCallback):
    """Writes what repeats from run to run; transformers' own DVCLive callback logs seconds too, and counts logs, not steps."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        # DVCLive would otherwise rewrite dvc.yaml and make an experiment of its own
        self.live = Live(self.scratch.name, dvcyaml=None, save_dvc_exp=False, report=None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the Trainer with each of its logs."""
        self.live.step = state.global_step
        for name in CURVES.keys() & (logs or {}).keys():
            self.live.log_metric(CURVES[name], float((logs or {})[name]))

    def write(self, folder: Path) -> None:
        """Ends the run and moves its tables to `folder`, one TSV for each curve."""
        self.live.end()
        tables = Path(self.live.plots_dir) / "metrics"
        for table in sorted(tables.rglob("*.tsv")):
            target = folder / table.relative_to(tables)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(table.read_bytes())
        self.scratch.cleanup()
