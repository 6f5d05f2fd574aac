"""onnx_model: a model that cannot run is an error of one line, and there are logits for every token."""

from pathlib import Path

import numpy as np

from tests.stages.built import built
from tests.stages.recipes import recipe
from tunepress.inference.onnx_model import OnnxModel


def test_the_logits_of_a_pruned_head_are_those_of_the_full_head(tiny_phi3: Path, tmp_path: Path) -> None:
    requests = [([3, 4, 5], [[1, 2, 3, 4], [5], [6, 7]])]
    chosen = recipe("fp32", extra_options={"prune_lm_head": True})
    whole, pruned = built(recipe("fp32"), tiny_phi3, tmp_path / "whole"), built(chosen, tiny_phi3, tmp_path / "pruned")
    expected, actual = (list(OnnxModel(folder).logits(requests)) for folder in (whole, pruned))
    for chunk, expected_chunk in zip(actual, expected, strict=True):
        assert chunk[:2] == expected_chunk[:2]
        np.testing.assert_allclose(chunk[2], expected_chunk[2], atol=1e-5)
