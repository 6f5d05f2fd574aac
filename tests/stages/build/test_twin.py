"""The twin of a model with sliding windows: right with what is installed, wrong with a window of one token more or less."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from stages.build import twin
from stages.build.builder import Builder
from tunepress.core.errors import InputError

LARGE: dict[str, dict[str, Any]] = {  # real widths, of which the twin takes the heads alone
    "phi3": {"sliding_window": 2047},  # Phi-3-mini-4k, whose shape is the default
    "mistral": {"sliding_window": 4096, "max_position_embeddings": 32768},
    "gemma2": {"sliding_window": 4096, "max_position_embeddings": 8192},
    "gemma3_text": {"sliding_window": 512, "max_position_embeddings": 32768},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("model_type", LARGE)
def test_what_is_installed_computes_windows_as_torch_does(model_type: str) -> None:
    twin.check(AutoConfig.for_model(model_type, **LARGE[model_type]))


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("model_type", LARGE)
def test_a_window_of_one_token_more_or_less_is_refused(model_type: str, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder.build

    def with_another_window(self: Builder, source: Path, folder: Path) -> None:
        content = (source / "config.json").read_text()
        config = AutoConfig.from_pretrained(source)
        config.sliding_window += more
        config.save_pretrained(source)
        build(self, source, folder)
        (source / "config.json").write_text(content)

    monkeypatch.setattr(Builder, "build", with_another_window)
    with pytest.raises(InputError, match="computes sliding windows differently from torch"):
        twin.check(AutoConfig.for_model(model_type, **LARGE[model_type]))


@pytest.mark.parametrize(
    "config", [{"sliding_window": None}, {"sliding_window": 4096}, {"sliding_window": 9000}], ids=["none", "context", "more"]
)
def test_a_window_as_long_as_the_context_needs_no_twin(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "logits", lambda config: (np.zeros(1), np.ones(1)))
    twin.check(AutoConfig.for_model("phi3", **config))
    with pytest.raises(InputError):
        twin.check(AutoConfig.for_model("phi3", sliding_window=4095))
