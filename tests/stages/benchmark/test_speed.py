"""Speed: what is counted, and that torch and onnxruntime-genai do the same work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.benchmark.speed import Generation, Runtime, Spread, Workload, generate, measure, summarize
from stages.build.stage import build
from tests.stages.recipes import recipe
from tunepress.core.errors import InputError
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel

FP32 = recipe("fp32")
PROMPT = [5 + (number * 37) % 250 for number in range(40)]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def fp32(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed") / "onnx"
    build(FP32, tiny_phi3, folder)
    return folder


@pytest.fixture(scope="module", params=["torch", "onnx"])
def runtime(request: pytest.FixtureRequest, tiny_phi3: Path, fp32: Path) -> Runtime:
    return TorchModel(tiny_phi3, deterministic=False) if request.param == "torch" else OnnxModel(fp32, threads=1)


def ending_with(token: int, folder: Path, target: Path) -> Path:
    """A copy of a model folder whose answers end with `token`."""
    shutil.copytree(folder, target)
    for name in ("generation_config.json", "genai_config.json"):
        if (target / name).exists():
            content: Any = json.loads((target / name).read_text())
            (content if name.startswith("generation") else content["model"])["eos_token_id"] = [token]
            (target / name).write_text(json.dumps(content))
    return target


def test_both_runtimes_give_the_same_tokens(tiny_phi3: Path, fp32: Path) -> None:
    prompts = [PROMPT, PROMPT[::-1]]
    expected = generate(TorchModel(tiny_phi3, deterministic=False), prompts, NEW_TOKENS).tokens
    assert generate(OnnxModel(fp32), prompts, NEW_TOKENS).tokens == expected
    assert expected[0] != expected[1]  # each sequence of the batch is answered for itself
    assert all(len(tokens) == NEW_TOKENS for tokens in expected)


def test_torchs_tokens_are_those_of_its_own_generate(tiny_phi3: Path) -> None:
    import torch

    runtime = TorchModel(tiny_phi3, deterministic=False)
    input_ids = torch.tensor([PROMPT])
    expected = runtime.model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
    )
    assert generate(runtime, [PROMPT], NEW_TOKENS).tokens == expected[:, len(PROMPT) :].tolist()


def test_the_end_of_an_answer_is_never_chosen(tiny_phi3: Path, fp32: Path, tmp_path: Path) -> None:
    usual = generate(TorchModel(tiny_phi3, deterministic=False), [PROMPT], NEW_TOKENS).tokens[0]
    end = usual[3]
    torch_model, onnx_model = (ending_with(end, folder, tmp_path / folder.name) for folder in (tiny_phi3, fp32))
    tokens = generate(TorchModel(torch_model, deterministic=False), [PROMPT], NEW_TOKENS).tokens[0]
    assert len(tokens) == NEW_TOKENS and end not in tokens
    assert generate(OnnxModel(onnx_model), [PROMPT], NEW_TOKENS).tokens[0] == tokens


def test_a_second_answer_does_not_depend_on_the_first(runtime: Runtime) -> None:
    first = generate(runtime, [PROMPT], NEW_TOKENS).tokens
    generate(runtime, [PROMPT[:7]] * 3, 2)
    assert generate(runtime, [PROMPT], NEW_TOKENS).tokens == first


def test_every_figure_is_there_with_its_spread(runtime: Runtime) -> None:
    measured = measure(runtime, PROMPT, Workload(32, 4, (1, 3), repetitions=3, warm_up=1))
    assert measured.keys() == {"load_seconds", "batch_1", "batch_3"}
    assert measured["load_seconds"] > 0
    for batch in ("batch_1", "batch_3"):
        assert list(measured[batch]) == ["time_to_first_token_ms", "prefill_tokens_per_second", "decode_tokens_per_second"]
        for spread in measured[batch].values():
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]


class Counting:
    """A runtime that only notes what it is asked."""

    load_seconds = 1.23456

    def __init__(self) -> None:
        self.prompts: list[list[list[int]]] = []
        self.steps = 0

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        self.prompts.append(prompts)
        return [0] * len(prompts)

    def step(self) -> list[int]:
        self.steps += 1
        return [0] * len(self.prompts[-1])


def test_each_batch_is_asked_as_often_as_wanted() -> None:
    counting = Counting()
    measured = measure(counting, PROMPT, Workload(10, 5, (1, 4), repetitions=3, warm_up=2))
    assert counting.prompts == [[PROMPT[:10]]] * 5 + [[PROMPT[:10]] * 4] * 5
    assert counting.steps == 2 * 5 * 4
    assert measured["load_seconds"] == 1.235


def test_figures_are_what_their_definitions_say() -> None:
    answers = [[1, 2, 3], [4, 5, 6]]  # two sequences: one first token each and two others
    runs = [Generation(answers, first, other) for first, other in ((0.1, 0.2), (0.2, 0.4), (0.4, 0.1))]
    assert summarize(runs, prompt_tokens=10) == {
        "time_to_first_token_ms": {"median": 200, "min": 100, "max": 400},
        "prefill_tokens_per_second": {"median": 100, "min": 50, "max": 200},
        "decode_tokens_per_second": {"median": 20, "min": 10, "max": 40},
    }


def test_spread_is_rounded() -> None:
    assert Spread.of([123456.0, 1.00004, 2.34567]) == Spread(2.346, 1.0, 123500.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt_tokens": 0}, "prompt_tokens: must be at least 1, got 0"),
        ({"new_tokens": 1}, "new_tokens: must be at least 2, got 1"),
        ({"repetitions": 0}, "repetitions: must be at least 1, got 0"),
        ({"warm_up": -1}, "warm_up: must be at least 0, got -1"),
        ({"batch_sizes": ()}, "batch_sizes: must be one or more numbers of at least 1, got []"),
        ({"batch_sizes": (1, 0)}, "batch_sizes: must be one or more numbers of at least 1, got [1, 0]"),
    ],
)
def test_a_workload_without_work_is_refused(changed: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"prompt_tokens": 8, "new_tokens": 4, "batch_sizes": (1,), "repetitions": 1, "warm_up": 0}
    with pytest.raises(InputError) as refused:
        Workload(**(usual | changed))
    assert str(refused.value) == message


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt_tokens: the text has only 40 of 41 tokens"):
        measure(Counting(), PROMPT, Workload(41, 2, (1,), 1, 0))
    with pytest.raises(InputError, match=r"no genai_config\.json"):
        OnnxModel(tmp_path)
    with pytest.raises(InputError, match=r"no config\.json"):
        TorchModel(tmp_path, deterministic=False)


def test_the_onnx_runtime_imports_no_torch(root: Path) -> None:
    code = "import sys; import tunepress.inference.onnx_model, stages.benchmark.speed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
