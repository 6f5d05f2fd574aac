"""The rules across groups of the configuration that have no place beside a stage."""

import re
from pathlib import Path

import pytest

from tunepress.config.params import Params
from tunepress.core.errors import InputError
from tunepress.core.params import load


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["++gate.min_gain_over={tfdif: 0.02}"], "gate.min_gain_over: tfdif is not in evaluate.baselines (majority, tfidf, "),
        (["evaluate.n_shot=0"], "evaluate.n_shot: must be at least 1, got 0"),
        (["evaluate.abstain_below=1"], "evaluate.abstain_below: must be a probability above 0 and below 1, or null, got 1.0"),
        (["evaluate.abstain_below=0"], "evaluate.abstain_below: must be a probability above 0 and below 1, or null, got 0.0"),
        (["gate.max_forgetting=0.1", "evaluate.retained=null"], "gate.max_forgetting: needs evaluate.retained, which is null"),
        *(
            ([f"{name}=0.5", "data.labels=null"], f"{name}: needs probabilities of labels, and data.labels is null")
            for name in ("evaluate.abstain_below", "gate.max_calibration_error", "gate.max_flipped_share")
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_key(overrides: list[str], message: str, root: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load(Params, overrides, root / "params.yaml")


def test_bounds_on_probabilities_go_with_labels(root: Path) -> None:
    overrides = ["evaluate.abstain_below=0.8", "gate.max_calibration_error=0.05", "gate.max_flipped_share=0.02"]
    assert load(Params, overrides, root / "params.yaml").evaluate.abstain_below == 0.8
