"""Phi-3-mini-4k at its full context: two layers of its real width with random weights, its window and 4,096 tokens.

    python -m tests.stages.test_full_context FOLDER

is the part that takes the memory, in a process of its own so that it can be measured.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PHI3_MINI = {  # Phi3Config's defaults are its shape; only the number of layers and the vocabulary are smaller
    "model_type": "phi3",
    "num_hidden_layers": 2,
    "sliding_window": 2047,
}
CONTEXT = 4096
MOST_GB = 6.0


def compare(folder: Path) -> None:
    """Builds the model in float32 and prints how far its logits are from torch's, and the peak memory."""
    import torch

    from stages.build.builder import Builder
    from stages.build.twin import genai_logits
    from tunepress.models.hf_model import load_model
    from tunepress.models.random_model import write_random_model

    source = folder / "source"
    source.mkdir()
    write_random_model(PHI3_MINI, 0, source)
    tokens = np.random.default_rng(0).integers(0, 256, CONTEXT).tolist()
    with torch.inference_mode():
        expected = load_model(source).eval()(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    Builder("fp32", "cpu", []).build(source, folder / "onnx")
    difference = np.abs(genai_logits(folder / "onnx", tokens) - expected).max(axis=-1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    largest = float(np.abs(expected).max())
    print(json.dumps({"tokens": len(difference), "difference": float(difference.max()) / largest, "peak_gb": peak}))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_seeds_model_is_torchs_at_its_full_context_within_six_gigabytes(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.stages.test_full_context", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["tokens"] == CONTEXT
    assert measured["difference"] < 1e-4
    assert measured["peak_gb"] < MOST_GB


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
