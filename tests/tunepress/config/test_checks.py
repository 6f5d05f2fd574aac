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
        (["evaluate.guidance=schema"], "evaluate.guidance: schema needs data.json_schema, which is null"),
        (["evaluate.guidance=labels", "data.labels=null"], "evaluate.guidance: labels needs data.labels, which is null"),
        (["data.json_schema=order.json"], "data.json_schema: is for answers in JSON, and data.labels are answers"),
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


def test_a_schema_that_guidance_cannot_follow_is_refused_before_anything_runs(root: Path, tmp_path: Path) -> None:
    overrides = ["evaluate.guidance=schema", "data.labels=null", f"data.json_schema={tmp_path}/schema.json"]
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"a": false}, "required": ["a"]}', encoding="utf-8")
    with pytest.raises(InputError, match=r"evaluate\.guidance: .*simplify the schema, or set it to null"):
        load(Params, overrides, root / "params.yaml")
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    assert load(Params, overrides, root / "params.yaml").data.json_schema == f"{tmp_path}/schema.json"
