"""repairs: k_quant rounds in chunks to the codes of the whole matrix."""

import numpy as np
import pytest
from onnxruntime.quantization.neural_compressor import weight_only

from stages.build import repairs


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("blocks", [1, 7, 100])
def test_k_quant_in_chunks_gives_the_codes_of_the_whole(bits: int, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    repairs.repair()
    weight = np.random.default_rng(0).normal(size=(96, 50)).astype(np.float32).T
    weight[3] = 0
    with np.errstate(divide="ignore", invalid="ignore"):  # of blocks of zeros, as without chunks
        whole = weight_only.quant_tensor_k_quant_cpu(weight, bits, 32)
        monkeypatch.setattr(repairs, "BLOCKS", blocks)
        chunked = weight_only.quant_tensor_k_quant_cpu(weight, bits, 32)
    assert [part.dtype for part in chunked] == [np.uint8, np.float64, np.uint8]
    for expected, actual in zip(whole, chunked, strict=True):
        np.testing.assert_array_equal(actual, expected)
