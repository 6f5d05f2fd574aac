"""Tasks of lm-evaluation-harness: the figures of its own Hugging Face backend, for torch and for onnx."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from stages.evaluate.harness import HarnessModel, measure_tasks
from tests.stages.built import built
from tests.stages.recipes import recipe
from tunepress.core.errors import InputError
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel

PAIRS = [
    ("A triangle has", " three sides"),
    ("A triangle has", " four sides and a very long explanation of each of them"),
    ("A triangle has", " none"),
    ("Water is ", "wet"),
    ("Water is", " dry"),
    ("", "The beginning of a text"),
    ("a " * 3000, "b"),  # longer than the context
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: {target}
{choices}metric_list:
  - metric: {metric}
"""


@pytest.fixture(scope="module")
def theirs(tiny_phi3: Path) -> HFLM:
    return HFLM(pretrained=str(tiny_phi3), device="cpu", dtype="float32", batch_size=1)


@pytest.fixture(scope="module", params=["torch", "onnx"])
def ours(request: pytest.FixtureRequest, tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> TorchModel | OnnxModel:
    if request.param == "torch":
        return TorchModel(tiny_phi3, batch_size=4)
    return OnnxModel(built(recipe("fp32"), tiny_phi3, tmp_path_factory.mktemp("fp32") / "onnx"))


@pytest.fixture(scope="module")
def tasks(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks over the questions and the text that come with the project."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = root / "data/retained/choices.jsonl"
    paragraphs = [
        {"prompt": "", "page": text} for text in (root / "data/retained/text.txt").read_text(encoding="utf-8").split("\n\n")
    ]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in paragraphs[:3]), encoding="utf-8")
    choices: dict[str, Any] = {
        "rows": questions,
        "kind": "multiple_choice",
        "target": "answer",
        "choices": "doc_to_choice: choices\n",
    }
    write: Callable[..., int] = lambda name, **values: (folder / f"{name}.yaml").write_text(TASK.format(name=name, **values))  # noqa: E731
    write("of_questions", metric="acc", **choices)
    write(
        "of_text",
        metric="word_perplexity",
        rows=folder / "text.jsonl",
        kind="loglikelihood_rolling",
        target='"{{page}}"',
        choices="",
    )
    write("of_answers", metric="exact_match", rows=questions, kind="generate_until", target='"{{choices[answer]}}"', choices="")
    return folder


def instances(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=values, idx=number) for number, values in enumerate(arguments)]


def test_likelihoods_are_those_of_the_harnesss_own_backend(ours: TorchModel | OnnxModel, theirs: HFLM) -> None:
    requests = instances("loglikelihood", PAIRS)
    expected, actual = theirs.loglikelihood(requests), HarnessModel(ours).loglikelihood(requests)
    assert [greedy for _, greedy in actual] == [greedy for _, greedy in expected]
    assert [logprob for logprob, _ in actual] == pytest.approx([logprob for logprob, _ in expected], abs=2e-3)


def test_a_long_text_is_scored_in_windows_as_by_the_harness(ours: TorchModel | OnnxModel, theirs: HFLM) -> None:
    requests = instances("loglikelihood_rolling", [("A short text.",), ("words and words " * 600,)])
    assert HarnessModel(ours).loglikelihood_rolling(requests) == pytest.approx(theirs.loglikelihood_rolling(requests), rel=1e-4)


def test_an_answer_ends_before_the_first_stop(ours: TorchModel | OnnxModel) -> None:
    prompts = ["Hello", "A text", "Water is", "0"]
    answers = HarnessModel(ours).generate_until(instances("generate_until", [(text, {"max_gen_toks": 12}) for text in prompts]))
    assert answers == [ours.answers([text], 12)[0] for text in prompts]
    longest = max(answers, key=len)
    prompt, stop = prompts[answers.index(longest)], longest[2:4]
    assert stop
    options = [{"max_gen_toks": 12, "until": stops} for stops in (["", stop, "never"], stop)] + [{"max_gen_toks": 2}]
    cut, also_cut, short = HarnessModel(ours).generate_until(instances("generate_until", [(prompt, part) for part in options]))
    assert cut == also_cut == longest.partition(stop)[0]
    assert short == ours.answers([prompt], 2)[0]


def test_tasks_are_measured_as_by_the_harness(ours: TorchModel | OnnxModel, theirs: HFLM, tasks: Path) -> None:
    measured = measure_tasks(ours, ["of_questions", "of_text", "of_answers"], tasks)
    own = TaskManager(include_path=str(tasks), include_defaults=False)
    results = simple_evaluate(theirs, tasks=["of_questions", "of_text"], task_manager=own)["results"]
    assert measured["of_questions"] == {"accuracy": pytest.approx(results["of_questions"]["acc,none"], abs=1e-4), "rows": 100}
    assert measured["of_text"]["perplexity"] == pytest.approx(results["of_text"]["word_perplexity,none"], rel=1e-3)
    assert measured["of_answers"]["accuracy"] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_task", "no_such_task is not a task of lm-evaluation-harness"), ("broken", "evaluate.tasks: broken: ")],
)
def test_a_task_that_cannot_be_measured_is_an_error_of_one_line(
    name: str, message: str, ours: TorchModel | OnnxModel, tasks: Path
) -> None:
    text = (tasks / "of_questions.yaml").read_text(encoding="utf-8")
    (tasks / "broken.yaml").write_text(
        text.replace("of_questions", "broken").replace("choices.jsonl", "nowhere.jsonl"), encoding="utf-8"
    )
    with pytest.raises(InputError, match=message) as error:
        measure_tasks(ours, [name], tasks)
    assert "\n" not in str(error.value)
