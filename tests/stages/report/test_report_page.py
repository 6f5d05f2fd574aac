"""The report as a reader sees it in Chromium: light and dark, on a desk and on a phone, without a network."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser

from stages.report import stage as report
from stages.report.calibration import bins_of
from stages.report.experiments import Experiment
from stages.report.page import page
from tests.stages.chromium import Opened, chromium, opened
from tests.stages.run_files import QUESTION, TONES, new_run, sections
from tunepress.core.files import read_csv
from tunepress.core.paths import METRICS, PREDICTIONS, REPORT
from tunepress.inference.metrics import wilson_interval

VIEWS: list[tuple[Literal["light", "dark"], int]] = [("light", 1200), ("light", 400), ("dark", 1200), ("dark", 400)]
CANDIDATES = ("base", "merged", "onnx")
EXPERIMENTS = (
    Experiment("workspace", 117.15, 0.9417, workspace=True),
    Experiment("azure-pug", 98.4, 0.91, workspace=False),
    Experiment("<fp16>", 271.2, 0.9542, workspace=False),
)

# The contrast of WCAG 2.2 (1.4.3) between each piece of text and everything painted under it, and the lowest of them.
# A canvas paints the colours one over the other, whatever notation the browser gives them in.
CONTRASTS = """() => {
  const pixel = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const canvas = pixel.getContext("2d", {willReadFrequently: true});
  const painted = colours => {
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = value => value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const found = [];
  for (const element of document.querySelectorAll("body *:not(title, desc, style)")) {
    const own = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const style = getComputedStyle(element);
    const ground = painted(["white", ...behind]);
    const text = painted([element instanceof SVGElement ? style.fill : style.color]);
    const [low, high] = [luminance(ground), luminance(text)].sort((a, b) => a - b);
    found.push({text: element.textContent.trim().slice(0, 40), ratio: (high + 0.05) / (low + 0.05), ground: ground.join()});
  }
  return found;
}"""

# The smallest text of each plot, in pixels of the screen.
TEXT_SIZES = """() => [...document.querySelectorAll("svg")].map(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return Math.min(...[...svg.querySelectorAll("text")].map(text => scale * parseFloat(getComputedStyle(text).fontSize))) + "px";
})"""

# Text that its box, or the page, cuts off; a box of class "scroll" and a <pre> may be wider inside than outside.
CUT_OFF = """() => [...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && box.right > innerWidth + 0.5 && !element.closest(".scroll, pre");
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as instance:
        yield instance


def reported(folder: Path, root: Path, labels: bool) -> Path:
    """A folder in which a run has ended, its report among it, and a report.html with experiments."""
    new_run(folder, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report.main(sections(root, labels))
        html = page(report.gather(sections(root, labels), EXPERIMENTS))
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported(tmp_path_factory.mktemp("tone"), root, labels=True)


@pytest.fixture(scope="module")
def question(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported(tmp_path_factory.mktemp("question"), root, labels=False)


@pytest.fixture
def seen(browser: Browser, tone: Path) -> Iterator[Opened]:
    """The page of the tone task with experiments, in the light, on a desk."""
    with opened(browser, tone / "report.html", "light", 1200) as view:
        yield view


@pytest.fixture
def free(browser: Browser, question: Path) -> Iterator[Opened]:
    """The stage's page of the task in free text."""
    with opened(browser, question / REPORT / "index.html", "light", 1200) as view:
        yield view


def metrics(folder: Path, name: str) -> Any:
    return json.loads((folder / METRICS / f"{name}.json").read_text(encoding="utf-8"))


def predicted(folder: Path, name: str) -> list[dict[str, str]]:
    return read_csv(folder / PREDICTIONS / f"{name}.csv")


def cells(seen: Opened, table: str) -> dict[str, list[str]]:
    """A table's rows by their names."""
    rows = [row.locator("th, td").all_inner_texts() for row in seen.page.locator(f"#{table} tbody tr").all()]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
@pytest.mark.parametrize("kind", ["tone", "question"])
def test_it_is_whole_and_legible(
    kind: str, scheme: Literal["light", "dark"], width: int, browser: Browser, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    with opened(browser, folder / "report.html", scheme, width) as seen:
        assert (seen.requests, seen.errors) == ([], [])
        assert seen.ask("document.documentElement.scrollWidth") <= width
        assert seen.ask(CUT_OFF) == []
        contrasts = seen.ask(CONTRASTS)
        grounds = {contrast["ground"] for contrast in contrasts}
        assert len(contrasts) > 200
        assert (min(sum(map(int, ground.split(","))) for ground in grounds) > 300) == (scheme == "light")
        assert [contrast for contrast in contrasts if contrast["ratio"] < 4.5] == []
        assert min(float(size.removesuffix("px")) for size in seen.ask(TEXT_SIZES)) >= 11


def test_headings_go_down_by_one_and_name_the_parts(seen: Opened) -> None:
    levels = [int(name[1]) for name in seen.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => one.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert seen.texts("h1") == ["SmolLM2-135M-Instruct fine-tuned to int4"]
    assert seen.texts("h2") == [
        "What each step did", "All experiments", "Fit to be shipped?", "Where the answers go", "Is it as right as it is sure?",
        "What it has forgotten", "What the rounding changed", "Examples", "Speed", "Rows", "Training", "How it was made",
    ]  # fmt: skip


def test_every_plot_says_what_it_shows_and_every_id_is_there_once(seen: Opened) -> None:
    plots = seen.page.get_by_role("img").all()
    assert len(plots) == 6
    for plot in plots:
        named = (plot.get_attribute("aria-labelledby") or "").split()
        assert all(len(seen.page.locator(f"#{name}").text_content() or "") > 10 for name in named), named
        assert len(named) == 2
    ids = seen.ask("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    used = seen.ask("[...document.querySelectorAll('use')].map(one => one.getAttribute('xlink:href').slice(1))")
    assert used
    assert set(used) <= set(ids)


def test_the_table_of_scores_is_that_of_the_metrics(seen: Opened, tone: Path) -> None:
    table = cells(seen, "scores")
    names = {"accuracy": "accuracy of the answers"}
    names |= {name: name.replace("_", " ") for name in ("macro_f1", "invalid_rate", "likelihood_accuracy")}
    names |= {"perplexity": "perplexity", "own_metric": "own metric"}
    decisive = {"accuracy": "accuracy", "accuracy_low": "95% interval, from", "accuracy_high": "95% interval, to"}
    assert sorted(table) == sorted([*names.values(), *decisive.values()])
    for key, name in names.items():
        assert table[name] == [f"{metrics(tone, f'evaluate/{candidate}')[key]:.3f}" for candidate in CANDIDATES]
    for key, name in decisive.items():
        assert table[name] == [f"{figures[key]:.3f}" for figures in decisive_figures(tone).values()]
    assert table["accuracy"][0] == "0.250"  # of the most likely label; of the answers it is 0


def decisive_figures(folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy and its interval of each candidate, for base those of its most likely label."""
    figures = {name: metrics(folder, f"evaluate/{name}") for name in CANDIDATES}
    figures["base"] |= {"accuracy": figures["base"]["likelihood_accuracy"]} | wilson_interval(60, 240, 0.95, "accuracy")
    return figures


def test_bars_are_as_long_as_the_scores_and_intervals_lie_where_they_should(seen: Opened, tone: Path) -> None:
    figures = decisive_figures(tone)
    bars = {name: seen.box(f"#ladder-{name}") for name in CANDIDATES}
    unit = bars["merged"]["width"] / figures["merged"]["accuracy"]
    left = bars["merged"]["x"]
    assert unit > 200
    assert bars["merged"]["width"] > bars["onnx"]["width"] > bars["base"]["width"] + 100
    assert bars["base"]["y"] < bars["merged"]["y"] < bars["onnx"]["y"]
    for name, scores in figures.items():
        assert bars[name]["width"] == pytest.approx(unit * scores["accuracy"], abs=1.5)
        interval = seen.box(f"#ladder-{name}-interval")
        ends = (interval["x"], interval["x"] + interval["width"])
        assert ends == pytest.approx((left + unit * scores["accuracy_low"], left + unit * scores["accuracy_high"]), abs=3)


def test_confusion_matrices_stand_side_by_side_and_count_the_predictions(seen: Opened, tone: Path) -> None:
    tops = {round(seen.box(f"#confusion-{name}")["y"]) for name in CANDIDATES}
    assert len(tops) == 1
    for name in CANDIDATES:
        matrix = cells(seen, f"confusion-{name}")
        assert list(matrix) == list(TONES)
        for expected, counts in matrix.items():
            answers = [row["predicted"] for row in predicted(tone, name) if row["expected"] == expected]
            assert counts == [str(answers.count(label)) for label in (*TONES, "(invalid)")]
    stronger = "getComputedStyle(document.querySelector('#confusion-onnx tbody tr td:nth-child({})')).backgroundColor"
    assert seen.ask(stronger.format(2)) != seen.ask(stronger.format(4)) == "color(srgb 1 1 1)"


@pytest.mark.parametrize(("plot", "column"), [("reliability", "confidence"), ("reliability-before", "raw_confidence")])
def test_points_of_the_reliability_plots_lie_at_confidence_and_share(plot: str, column: str, seen: Opened, tone: Path) -> None:
    diagonal = seen.box(f"#{plot}-diagonal")
    for name in ("merged", "onnx"):
        bins = bins_of(predicted(tone, name), column)
        points = seen.boxes(f"#{plot}-{name} path")
        assert len(points) == len(bins) > 3
        for point, bin_ in zip(points, bins, strict=True):
            x = (point["x"] + point["width"] / 2 - diagonal["x"]) / diagonal["width"]
            y = 1 - (point["y"] + point["height"] / 2 - diagonal["y"]) / diagonal["height"]
            assert (x, y) == pytest.approx((bin_.confidence, bin_.right), abs=0.02)


def test_the_table_of_probabilities_is_that_of_the_metrics(seen: Opened, tone: Path) -> None:
    table, pair = cells(seen, "probabilities"), [metrics(tone, f"evaluate/{name}") for name in ("merged", "onnx")]
    for key, name in (("calibration_error", "calibration error"), ("brier", "brier"), ("nll", "nll")):
        assert table[name] == [f"{figures[key]:.3f}" for figures in pair]
        assert table[f"{name} after it"] == [f"{figures['calibrated'][key]:.3f}" for figures in pair]
    assert table["temperature"] == ["1.35", "1.35"]
    assert table["accuracy of the most certain 95%"] == ["0.965", "0.965"]
    assert cells(seen, "agreement")["rows whose most likely label is another"] == ["2.92%"]


def test_the_table_of_other_subjects_is_that_of_the_metrics(seen: Opened) -> None:
    assert cells(seen, "retained") == {
        "choices, accuracy": ["0.610", "0.550", "0.540"],
        "text, perplexity": ["24.100", "30.200", "31.500"],
    }


def test_the_histogram_has_its_counts_and_the_limit_right_of_all_rows(seen: Opened, tone: Path) -> None:
    lengths = metrics(tone, "prepare")["lengths"]
    bars = [seen.box(f"#lengths-bin-{number}") for number in range(len(lengths["counts"]))]
    highest, lowest = max(lengths["counts"]), min(lengths["counts"])
    heights = [bar["height"] for bar in bars]
    unit = (max(heights) - min(heights)) / (highest - lowest)  # the outline adds the same to each
    assert unit * highest > 100
    assert [height - min(heights) for height in heights] == pytest.approx(
        [unit * (count - lowest) for count in lengths["counts"]], abs=1
    )
    assert seen.box("#lengths-limit")["x"] > bars[-1]["x"] + bars[-1]["width"]
    assert seen.page.get_by_text("limit 256", exact=True).is_visible()


def test_loss_curves_fall_as_they_were_logged(seen: Opened) -> None:
    points = seen.boxes("#loss-training use")
    assert len(points) == 17
    assert points[0]["y"] < points[8]["y"] < points[-1]["y"]
    assert len(seen.boxes("#loss-validation use")) == 3
    assert seen.boxes("#loss-validation use")[0]["y"] > points[0]["y"] + 50


def test_experiments_are_drawn_by_size_and_score_and_the_workspace_is_marked(seen: Opened) -> None:
    pug, full, own = (seen.box(f"#sizes-experiment-{number}") for number in range(3))
    assert pug["x"] < own["x"] < full["x"]
    assert pug["y"] > own["y"] > full["y"]
    fills = [seen.ask(f"getComputedStyle(document.querySelector('#sizes-experiment-{n} use')).fill") for n in range(3)]
    assert fills[0] == fills[1] != fills[2]
    assert cells(seen, "experiments") == {
        "workspace": ["117.2", "0.942"], "azure-pug": ["98.4", "0.910"], "<fp16>": ["271.2", "0.954"],
    }  # fmt: skip


def test_the_stages_own_page_knows_of_no_experiments(browser: Browser, tone: Path) -> None:
    with opened(browser, tone / REPORT / "index.html", "light", 1200) as seen:
        assert (seen.requests, seen.errors) == ([], [])
        assert "All experiments" not in seen.texts("h2")
        assert seen.page.locator("#sizes-title").count() == 0


def test_the_gate_names_each_bound_and_its_verdict(seen: Opened, free: Opened) -> None:
    assert seen.texts("#verdict") == ["Gate not passed: 1 of 3 bounds broken"]
    assert cells(seen, "gate") == {
        "max_drop": ["0.05", "0.0125", "kept"],
        "min_gain": ["0.2", "0.7042", "kept"],
        "max_size_mb": ["100", "117.15", "broken"],
    }
    assert free.texts("#verdict") == ["No bound is set"]
    assert free.page.locator("#gate").count() == 0


def test_agreement_and_speed_are_those_of_the_metrics(seen: Opened, tone: Path) -> None:
    agreement = {name: row[0] for name, row in cells(seen, "agreement").items()}
    compare = metrics(tone, "compare")
    assert agreement["rows answered differently"] == f"{compare['changed']} of 240"
    assert agreement["right before, wrong after"] == str(compare["only_merged_right"])
    assert agreement["tokens for which both hold the same most probable"] == "97.46% of 512"
    speed = cells(seen, "speed")
    assert speed["size on disk, MB"] == ["542", "117"]
    assert speed["one prompt: answer, tokens/s"] == ["38.6 (36.7 to 41.7)", "81.1 (77.0 to 87.5)"]
    assert len(speed) == 9
    assert "AMD EPYC 7B13, 2 cores" in seen.texts("#speed caption")[0]


def test_examples_are_right_wrong_and_changed_without_the_template(seen: Opened, tone: Path) -> None:
    right, wrong, changed = (seen.page.locator(f"#{name} li").all_inner_texts() for name in ("right", "wrong", "changed"))
    assert [len(right), len(wrong), len(changed)] == [6, 6, 6]
    assert not any("###" in text for text in (*right, *wrong, *changed))
    assert any("<straight> off the vine & sharing" in text for text in right)
    mistakes = [row for row in predicted(tone, "onnx") if row["predicted"] != row["expected"]]
    surest = max(mistakes, key=lambda row: row["confidence"])
    assert f"expected {surest['expected']}, onnx {surest['predicted']} ({float(surest['confidence']):.2f})" in wrong[0]
    first = predicted(tone, "changed")[0]
    assert f"expected {first['expected']}, merged {first['merged']}, onnx {first['onnx']}" in changed[0]


def test_it_says_with_what_it_was_made(seen: Opened) -> None:
    assert "python -m stages.train" in seen.texts("#commands")[0].splitlines()
    versions = cells(seen, "versions")
    assert {"python", "torch", "onnxruntime-genai", "transformers"} <= set(versions)
    hashes = cells(seen, "hashes")
    assert hashes["models/onnx/model.onnx"] == ["87e93f89f2be0db364e8be052f79f389e6c2da239831922e24513288af522a43"]
    parameters = dict(zip(seen.texts("#parameters dt"), seen.texts("#parameters dd"), strict=True))
    assert parameters["train.learning_rate"] == "0.001"
    assert parameters["data.labels"] == '["joy", "sadness", "fear", "surprise"]'
    assert parameters["adapter.method"] == "lora"
    assert parameters["train.bf16"] == "false"


def test_free_text_has_no_labels_to_draw(free: Opened, question: Path) -> None:
    assert {"Where the answers go", "Is it as right as it is sure?"}.isdisjoint(free.texts("h2"))
    assert free.page.locator(".confusion, #per-class, #reliability-title").count() == 0
    table = cells(free, "scores")
    for name in ("exact_match", "token_f1", "rouge_l", "perplexity", "own_metric"):
        expected = [f"{metrics(question, f'evaluate/{candidate}')[name]:.3f}" for candidate in CANDIDATES]
        assert table[name.replace("_", " ")] == expected
    assert free.box("#ladder-merged")["width"] > free.box("#ladder-base")["width"]
    rendered = free.page.locator("#right li p").first.inner_text()
    assert rendered.splitlines()[0] == "Subject: life"
    assert rendered.splitlines()[1].startswith("Question: Our old dog")
    assert free.texts("#prompt") == [(QUESTION.prompt or "").strip()]
    assert free.box("#lengths-limit")["x"] > 0
