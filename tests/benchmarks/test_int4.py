"""The int4 benchmark: what its table says of some seeds, and that docs/benchmarks.md says the same of those measured."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import RESULTS
from benchmarks.int4 import __main__ as int4
from benchmarks.processes import Figures
from tools.docs import int4 as documented
from tunepress.core.files import read_json

LEAST_P = 0.0001  # docs/benchmarks.md shows smaller values as < 0.0001


def seed(right: int, kl: float, only_merged: int, only_onnx: int) -> Figures:
    figures = {
        "rows": 100,
        "right": right,
        "perplexity": 1.5,
        "size_mb": 90.0,
        "build_seconds": 20.0,
        "top1_agreement": 0.9,
        "mean_kl": kl,
        "only_merged_right": only_merged,
        "only_onnx_right": only_onnx,
    }
    return {"merged": {"rows": 100, "right": 95, "perplexity": 1.25}} | dict.fromkeys(int4.RECIPES, figures)


def test_a_recipe_s_line_is_of_all_seeds() -> None:
    cells = int4.cells("k_quant", [seed(93, 0.02, 3, 1), seed(89, 0.04, 7, 1)])
    # 2 and 6 points: 4 in the mean, whose standard error is sqrt(8) / sqrt(2); 10 rows against 2: 2 * (1 + 12 + 66) / 2 ** 12
    assert cells == ["90.0 MB", "20 s", "0.0300", "0.0200\n0.0400", "90.0%", "0.910", "4.0 ± 2.0", "0.039", "1.500"]
    assert int4.cells("merged", [seed(93, 0.02, 3, 1)])[5:] == ["0.950", "", "", "1.250"]


def test_probabilities_are_shown_before_and_after_the_temperature() -> None:
    labels: Figures = {"calibration_error": 0.05, "brier": 0.12, "nll": 0.3, "temperature": 1.4, "flipped_share": 0.03}
    labels |= {"calibrated": {"calibration_error": 0.02, "brier": 0.1, "nll": 0.2}}
    other = labels | {"temperature": 1.6, "flipped_share": 0.01}
    seeds = [dict.fromkeys(("merged", "k_quant"), figures) for figures in (labels, other)]
    assert int4.label_cells("k_quant", seeds) == ["0.050\n0.020", "0.120\n0.100", "0.300\n0.200", "1.50", "2.0%"]
    assert int4.label_cells("merged", seeds)[-1] == ""


def test_the_documented_probabilities_are_means_over_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def calibrated(error: float, flipped: float) -> Figures:
        before = {"calibration_error": error, "brier": 0.12, "nll": 0.3, "temperature": 1 + error, "flipped_share": flipped}
        return dict.fromkeys(
            ("merged", "k_quant"), before | {"calibrated": {"calibration_error": 0.02, "brier": 0.1, "nll": 0.2}}
        )

    runs = {"some": {"0": calibrated(0.1, 0.03), "1": calibrated(0.2, 0.01)}, "not calibrated": {"0": seed(90, 0.1, 3, 1)}}
    monkeypatch.setattr(documented, "read", lambda name: {"runs": runs})
    monkeypatch.setattr(documented, "measured", lambda figures: "")
    *_, merged, k_quant = documented.probabilities().splitlines()
    assert merged == "| some, 2 trainings | merged | 0.150, 0.020 | 0.300, 0.200 | 0.120, 0.100 | 1.15 |  |"
    assert k_quant == "| some, 2 trainings | k_quant | 0.150, 0.020 | 0.300, 0.200 | 0.120, 0.100 | 1.15 | 2.0% |"


def test_one_seed_has_no_standard_error_and_no_differing_row_is_no_evidence() -> None:
    cells = int4.cells("k_quant", [seed(95, 0.0, 0, 0)])
    assert cells[6:8] == ["0.0", "1"]


def test_another_seed_joins_those_that_are_there(tmp_path: Path) -> None:
    results = tmp_path / "int4.json"
    for number, right in ((1, 93), (0, 89), (1, 94)):
        int4.keep(seed(right, 0.02, 3, 1), "rows", number, results)
    int4.keep(seed(90, 0.02, 3, 1), "others", 0, results)
    runs = read_json(results)["runs"]
    assert {name: {key: figures["k_quant"]["right"] for key, figures in seeds.items()} for name, seeds in runs.items()} == {
        "rows": {"0": 89, "1": 94},
        "others": {"0": 90},
    }


@pytest.mark.parametrize("recipe", int4.RECIPES)
def test_the_documented_table_is_what_was_measured(recipe: str, root: Path) -> None:
    page = (root / "docs/benchmarks.md").read_text("utf-8")
    (line,) = re.findall(rf"^\| {re.escape(recipe)} \| .*, p .* \|$", page, re.MULTILINE)
    runs: dict[str, Any] = read_json(RESULTS / "int4.json")["runs"]
    expected = []
    for name in ("default rows", "goemotions-tone"):
        seeds = list(runs[name].values())
        kl = [seed[recipe]["mean_kl"] for seed in seeds]
        p = int4.p_value(recipe, seeds)
        expected += [
            f"{sum(kl) / len(kl):.3f} ({min(kl):.3f} to {max(kl):.3f})",
            f"{int4.lost(recipe, seeds)}, p {f'< {LEAST_P}' if p < LEAST_P else f'= {p:.1g}' if p < 0.01 else f'= {p:.2f}'}",
        ]
    assert line.strip("| ").split(" | ")[2:] == expected
