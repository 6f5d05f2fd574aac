"""Loss curves in DVCLive's files, for `dvc plots`."""

import tempfile
from pathlib import Path
from typing import Any

from dvclive import Live

CURVES = {"loss": "train/loss", "eval_loss": "eval/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


def write_loss_curves(log_history: list[dict[str, Any]], folder: Path) -> None:
    """Writes one TSV for each curve, of what repeats from run to run.

    transformers' own DVCLive callback writes seconds too, counts logs instead of steps, and begins anew on a resumed run.

    Args:
        log_history: of the Trainer's state, which a checkpoint keeps.
        folder: where the tables go.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # DVCLive would otherwise rewrite dvc.yaml and make an experiment of its own
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
    if not log_history:  # DVC keeps no empty folder in an experiment
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "loss.tsv").write_text("step\tloss\n", encoding="utf-8")
