"""The Hub: what it does not have is one line; downloads are in the tests of fetch and of adapters."""

import pytest
from huggingface_hub import constants

from tunepress.core.errors import InputError
from tunepress.models.hub import download_snapshot


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as refused:
        download_snapshot("org/none", "0" * 40, ["*.json"])
    assert str(refused.value).startswith("org/none: could not be downloaded from the model hub (")
    assert "\n" not in str(refused.value)
