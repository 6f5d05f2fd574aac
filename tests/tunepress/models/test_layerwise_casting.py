"""Weights in 16 bits and arithmetic in float32: the same bits as the model in float32, in half the memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tunepress.models.twins import TWINS, logits, twin
from tunepress.inference.torch_model import TorchModel
from tunepress.models import layerwise_casting
from tunepress.models.hf_model import load_model
from tunepress.models.layerwise_casting import fits_in_float32, in_sixteen_bits, load_in_float32

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", TWINS)
def test_the_logits_are_those_of_the_model_in_float32(name: str, tmp_path: Path) -> None:
    folder = twin(tmp_path / "base", TWINS[name], torch.bfloat16)
    casting, plain = (load_in_float32(folder, casts=casts) for casts in (True, False))
    assert {parameter.dtype for parameter in casting.parameters()} == {torch.float32, torch.int16}
    expected = logits(load_model(folder, dtype=torch.float32))
    np.testing.assert_array_equal(logits(casting), expected)
    np.testing.assert_array_equal(logits(plain), expected)


def test_a_weight_in_float16_is_cast_too(tmp_path: Path) -> None:
    folder = twin(tmp_path / "base", TWINS["llama"], torch.float16)
    np.testing.assert_array_equal(logits(load_in_float32(folder, casts=True)), logits(load_model(folder, dtype=torch.float32)))


def test_weights_stay_in_16_bits_where_32_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = twin(tmp_path / "base", TWINS["llama"], torch.bfloat16)
    bytes_in_float32 = 4 * sum(parameter.numel() for parameter in load_model(folder).parameters())
    answers = TorchModel(folder).answers(["What a day!"], 8)
    for free, dtypes in ((2.1, {torch.float32}), (1.9, {torch.float32, torch.int16})):
        monkeypatch.setattr(layerwise_casting, "free_memory", lambda free=free: free * bytes_in_float32)
        assert fits_in_float32(folder) is (len(dtypes) == 1)
        model = TorchModel(folder)
        assert {parameter.dtype for parameter in model.model.parameters()} == dtypes
        assert model.answers(["What a day!"], 8) == answers


def test_files_in_32_bits_are_not_cast(tmp_path: Path) -> None:
    folder = twin(tmp_path / "base", TWINS["llama"])
    assert not in_sixteen_bits(folder)
    assert {parameter.dtype for parameter in load_in_float32(folder, casts=True).parameters()} == {torch.float32}


def test_what_generates_is_as_the_files_say(tmp_path: Path) -> None:
    folder = twin(tmp_path / "base", TWINS["llama"], torch.bfloat16)
    expected = load_model(folder)
    for casts in (True, False):
        model = load_in_float32(folder, casts=casts)
        assert (model.training, model.name_or_path) == (False, expected.name_or_path)
        assert model.generation_config.to_dict() == expected.generation_config.to_dict()
