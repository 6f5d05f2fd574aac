"""onnx_model: a model that cannot run is an error of one line, and there are logits for every token."""

from pathlib import Path

import numpy as np
import pytest

from tests.stages.built import built
from tests.stages.recipes import recipe
from tunepress.core.errors import InputError
from tunepress.inference.onnx_model import OnnxModel, check_generates


def test_a_model_with_nan_logits_fails_the_check_of_build(tiny_phi3: Path, tmp_path: Path) -> None:
    folder = built(recipe("fp32"), tiny_phi3, tmp_path / "onnx")
    (folder / "model.onnx.data").write_bytes(b"\xff" * (folder / "model.onnx.data").stat().st_size)  # all NaN
    with pytest.raises(InputError, match="computes NaN or infinite logits"):
        check_generates(folder, "Text: hello")


def test_the_logits_of_a_pruned_head_are_those_of_the_full_head(tiny_phi3: Path, tmp_path: Path) -> None:
    requests = [([3, 4, 5], [[1, 2, 3, 4], [5], [6, 7]])]
    chosen = recipe("fp32", extra_options={"prune_lm_head": True})
    whole, pruned = built(recipe("fp32"), tiny_phi3, tmp_path / "whole"), built(chosen, tiny_phi3, tmp_path / "pruned")
    expected, actual = (list(OnnxModel(folder).logits(requests)) for folder in (whole, pruned))
    for chunk, expected_chunk in zip(actual, expected, strict=True):
        assert chunk[:2] == expected_chunk[:2]
        np.testing.assert_allclose(chunk[2], expected_chunk[2], atol=1e-5)
