"""Paths of the stages' outputs, relative to the project's root; dvc.yaml names the same paths."""

from pathlib import Path

BASE = Path("models/base")
ADAPTER = Path("models/adapter")
MERGED = Path("models/merged")
ONNX = Path("models/onnx")
ADAPTER_FILE = "adapter.onnx_adapter"  # in ONNX, if the adapter is not merged into the weights
MODEL_CARD = Path("models/MODEL_CARD.md")
CONFORMANCE = Path("models/conformance.jsonl")  # what ONNX answers to some prompts, for tools.cli.verify
PREPARED = Path("data/prepared")
TRAINING_ROWS = PREPARED / "train.jsonl"
VALIDATION_ROWS = PREPARED / "validation.jsonl"
CALIBRATION_ROWS = PREPARED / "calibration.jsonl"  # only with data.calibration_files
PREDICTIONS = Path("predictions")
CHANGED = PREDICTIONS / "changed.csv"  # rows that merged and onnx answer differently
METRICS = Path("metrics")
LOSS_CURVES = METRICS / "loss"
TIMINGS = METRICS / "timings"  # not in git: they differ from run to run
REPORT = Path("report")
