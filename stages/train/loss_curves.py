"""Writes loss curves in DVCLive's format, for `dvc plots`."""

import tempfile
from pathlib import Path
from typing import Any

from dvclive import Live

CURVES = {"loss": "train/loss", "eval_loss": "eval/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


def write_loss_curves(log_history: list[dict[str, Any]], folder: Path) -> None:
    """Writes one TSV file for each curve, with the values that are the same in every run.

    transformers' own DVCLive callback also writes seconds, counts logs instead of steps, and starts again in a resumed run.

    Args:
        log_history: the log history of the Trainer's state, which checkpoints include.
        folder: the output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # otherwise DVCLive would rewrite dvc.yaml and create its own experiment
        with Live(scratch, dvcyaml=None, save_dvc_exp=False, report=None) as live:
            for log in log_history:
                live.step = log["step"]
                for name in CURVES.keys() & log.keys():
                    live.log_metric(CURVES[name], float(log[name]))
        tables = Path(live.plots_dir) / "metrics"
        for table in sorted(tables.rglob("*.tsv")):
            target = folder / table.relative_to(tables)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(table.read_bytes())
    if not log_history:  # DVC does not keep empty folders in an experiment
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "loss.tsv").write_text("step\tloss\n", encoding="utf-8")
