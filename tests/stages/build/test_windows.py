"""Sliding windows and longrope: the built model sees what torch's does, on both sides of every boundary."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig

from stages.build import windows
from tests.conftest import ROOT
from tests.stages.built import built, settings
from tests.stages.merging import disturbed_model
from tests.stages.recipes import recipe
from tunepress.config.build import Build
from tunepress.core.errors import InputError
from tunepress.core.files import write_jsonl
from tunepress.core.paths import PREPARED
from tunepress.inference import onnx_model
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import OnnxModel
from tunepress.models.hf_model import load_model
from tunepress.text.segments import context, learned

WINDOW, SWITCH = 64, 96  # tokens
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "sliding_window": WINDOW,
}
PHI3 = {"model_type": "phi3", "original_max_position_embeddings": 512}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1 + number / 10 for number in range(8)],
    "long_factor": [2 + number for number in range(8)],
}
MODELS: dict[str, dict[str, Any]] = {
    "phi3": PHI3,
    "phi3 without a window": {**PHI3, "sliding_window": None},
    "phi3 with longrope": {**PHI3, "original_max_position_embeddings": SWITCH, "rope_parameters": LONGROPE},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 1},
    "gemma2": {"model_type": "gemma2"},
    "gemma3": {"model_type": "gemma3_text", "sliding_window_pattern": 2},
    "qwen2 that uses no window": {"model_type": "qwen2", "use_sliding_window": False},
}
ALL = windows.ALL
EXPECTED = {
    "phi3": [WINDOW] * 4,
    "phi3 without a window": [ALL] * 4,
    "phi3 with longrope": [WINDOW] * 4,
    "mistral": [WINDOW] * 4,
    "qwen2": [ALL, ALL, WINDOW, WINDOW],
    "qwen3": [ALL, WINDOW, WINDOW, WINDOW],
    "gemma2": [WINDOW, ALL, WINDOW, ALL],
    "gemma3": [WINDOW, ALL, WINDOW, ALL],
    "qwen2 that uses no window": [ALL] * 4,
}
LENGTHS = (WINDOW - 1, WINDOW, WINDOW + 1, SWITCH - 1, SWITCH, SWITCH + 1, 5 * WINDOW)
TARGETS = sorted(path.stem for path in (ROOT / "conf/build").glob("*.yaml"))
TOKENS: list[int] = np.random.default_rng(0).integers(0, 256, 5 * WINDOW).tolist()
CLOSE = 1e-5

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("source"), **MODELS[name])


@pytest.fixture(scope="module")
def model(source: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """The model in float32, which reads a prompt in parts of half a window where it can be read so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_model, "PROMPT_CHUNK", WINDOW // 2)
        return OnnxModel(built(recipe("fp32"), source, tmp_path_factory.mktemp("built") / "onnx"))


def random_model(folder: Path, **fields: Any) -> Path:
    """A model whose attention has something to say."""
    return disturbed_model(folder, SHAPE | fields)


@torch.inference_mode()
def by_torch(source: Path, tokens: list[int]) -> np.ndarray:
    actual: np.ndarray = load_model(source).eval()(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    return actual


def of_conf(name: str, **changed: Any) -> Build:
    chosen = OmegaConf.merge(OmegaConf.structured(Build), OmegaConf.load(ROOT / f"conf/build/{name}.yaml"))
    made = OmegaConf.to_object(OmegaConf.merge(chosen, changed))
    assert isinstance(made, Build)
    return made


def local_windows(folder: Path) -> list[int]:
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    return [next(at.i for at in node.attribute if at.name == "local_window_size") for node in attention]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_logits_of_a_prompt_are_torchs(length: int, source: Path, model: OnnxModel) -> None:
    ((_, _, last),) = model.logits([(TOKENS[:length], [[0]])])
    np.testing.assert_allclose(last[0], by_torch(source, TOKENS[:length])[-1], atol=CLOSE, rtol=0)


@pytest.mark.parametrize("length", LENGTHS[:3])
def test_the_logits_of_several_completions_are_torchs_where_the_prompt_ends_at_the_window(
    length: int, source: Path, model: OnnxModel
) -> None:
    prompt, completions = TOKENS[:length], [TOKENS[100:106], TOKENS[200:210]]
    for _, place, logits in model.logits([(prompt, completions)]):
        expected = by_torch(source, prompt + completions[place])[length - 1 : -1]
        np.testing.assert_allclose(logits, expected, atol=CLOSE, rtol=0)


def test_a_model_answers_past_its_window_as_torch_does(source: Path, model: OnnxModel) -> None:
    prompt, answer = TOKENS[: WINDOW - 4], list(model.generate(TOKENS[: WINDOW - 4], 12))
    assert answer == by_torch(source, prompt + answer)[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_each_layer_of_a_config_has_its_window(name: str, source: Path) -> None:
    assert windows.windows(AutoConfig.from_pretrained(source)) == EXPECTED[name]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["phi3", "qwen2", "gemma3"], indirect=True, scope="module")
def test_every_target_has_the_windows_in_its_graph_and_a_whole_cache(
    target: str, name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    PREPARED.mkdir(parents=True)
    write_jsonl(
        PREPARED / "train.jsonl", [{"segments": [context(f"Text: day {n}\nTone: "), learned("joy", "joy")]} for n in range(4)]
    )
    folder = built(of_conf(target), source, tmp_path / "onnx")
    assert local_windows(folder) == EXPECTED[name]
    assert "sliding_window" not in GenaiConfig.read(folder).decoder
    windows.check(onnx.load(folder / "model.onnx", load_external_data=False), GenaiConfig.read(folder), EXPECTED[name])


def test_a_window_that_a_llama_names_and_does_not_use_is_left_out(tmp_path: Path) -> None:
    source = random_model(tmp_path, model_type="llama")
    assert AutoConfig.from_pretrained(source).sliding_window == WINDOW
    folder = built(recipe("fp32"), source, tmp_path / "onnx")
    assert local_windows(folder) == [ALL] * 4
    assert "sliding_window" not in GenaiConfig.read(folder).decoder


# check


@pytest.fixture
def with_window(tmp_path: Path) -> Path:
    source = random_model(tmp_path / "source", **PHI3)
    return built(recipe("fp32"), source, tmp_path / "onnx")


def refused(folder: Path, expected: list[int]) -> str:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    with pytest.raises(InputError) as raised:
        windows.check(model, GenaiConfig.read(folder), expected)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_layer_with_another_window_is_refused(with_window: Path) -> None:
    message = refused(with_window, [WINDOW, WINDOW, WINDOW + 1, WINDOW])
    assert message.startswith("model.onnx: layer 2 sees the last 64 tokens, in the source model the last 65 tokens; ")
    assert "layer 3 sees the last 64 tokens" in refused(with_window, [WINDOW] * 3 + [ALL])


def test_a_cache_as_short_as_the_window_is_refused(with_window: Path) -> None:
    settings(with_window, lambda model: model["decoder"].update(sliding_window={"window_size": WINDOW}))
    assert refused(with_window, [WINDOW] * 4).startswith("genai_config.json: declares a cache as short as ")
