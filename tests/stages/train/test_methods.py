"""Every kind of adapter and every initialisation: it trains, repeats, and the merged model is the model that was trained."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from safetensors.torch import load_file

from stages.build import stage as build
from stages.evaluate import stage as evaluate
from stages.merge import stage as merge
from stages.train import stage as train
from stages.train.trainer import FlatteningCollator
from tests.conftest import ROOT
from tests.stages.recipes import MERGE, evaluation, recipe
from tests.stages.training import CONFIG, WEIGHTS, curve, hashes, row, sections
from tunepress.config.adapter import moves_the_base
from tunepress.config.merge import Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import write_jsonl
from tunepress.core.paths import ADAPTER, BASE, MERGED, METRICS, ONNX, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.models.bnb_4bit import disable_repacking
from tunepress.models.hf_model import load_encoder, load_model
from tunepress.text.segments import prompt_text

CASES: dict[str, dict[str, Any]] = {
    **{
        file.stem: {"file": file.stem}
        for file in sorted((ROOT / "conf/adapter").glob("*.yaml"))
        if file.stem not in ("none", "file", "hub")  # which train nothing
    },
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "olora": {"init_lora_weights": "olora"},
    "exact-pissa": {"init_lora_weights": "pissa"},
    "pissa-of-rslora": {"file": "rslora", "init_lora_weights": "pissa"},
    "orthogonal-qlora-in-fp4": {"file": "qlora", "init_lora_weights": "orthogonal", "bnb_4bit_quant_type": "fp4"},
    "loftq-of-qdora": {"file": "qdora", "init_lora_weights": "loftq", "bnb_4bit_use_double_quant": False},
}
MODULES = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
TEXTS = [prompt_text(row(number, "validation")) for number in range(4)]
QUICK: dict[str, Any] = {"learning_rate": 0.01}  # enough to be seen in the logits
CLOSE = 1e-5


def settings(file: str = "lora", **changed: Any) -> dict[str, Any]:
    """A file of conf/adapter/ as Hydra composes it, all of whose defaults are `lora`, with a lower rank."""
    composed: dict[str, Any] = {str(name): value for name, value in OmegaConf.load(ROOT / f"conf/adapter/{file}.yaml").items()}
    composed.pop("defaults", None)
    return composed | {"r": 4} | changed


@dataclass
class Trained:
    cfg: train.Config
    model: PeftModel

    @property
    def compensated(self) -> bool:
        return bool(self.cfg.adapter.init_lora_weights == "loftq")

    @property
    def base(self) -> MergeBase:
        """The weights that it was trained on."""
        return MergeBase.dequantized if self.cfg.adapter.method.quantized else MergeBase.original


@pytest.fixture(scope="module", params=CASES)
def trained(
    request: pytest.FixtureRequest, project: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """What `train` has made in a project of its own, which is the working folder."""
    folder = tmp_path_factory.mktemp("methods") / "project"
    shutil.copytree(project, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield train_it(sections(ROOT, adapter=settings(**CASES[request.param]), **QUICK))


def train_it(cfg: train.Config) -> Trained:
    """Trains, and keeps the model that was trained."""
    kept: list[Any] = []
    make = train.make_trainer

    def keep(*arguments: Any) -> Any:
        kept.append(make(*arguments))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_trainer", keep)
        train.main(cfg)
    return Trained(cfg, kept[0].model.eval())


@torch.inference_mode()
def logits_joined(model: Any) -> list[torch.Tensor]:
    """The logits of TEXTS, joined as training joins them."""
    examples = [load_encoder(BASE).encode_prompt(text) for text in TEXTS]
    batch = FlatteningCollator(boundaries=True)([[{"input_ids": tokens, "labels": tokens}] for tokens in examples])
    inputs = {
        name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items() if name != "labels"
    }
    actual: torch.Tensor = model(**inputs, use_cache=False).logits[0].float().cpu()
    return list(actual.split([len(tokens) for tokens in examples]))


@torch.inference_mode()
def logits(model: Any) -> list[torch.Tensor]:
    """The logits of TEXTS, one after the other in an ordinary model."""
    return [model.eval()(torch.tensor([load_encoder(BASE).encode_prompt(text)])).logits[0] for text in TEXTS]


def merged(base: MergeBase) -> Any:
    merge.main(merge.Config(Merge(base)))
    return load_model(MERGED)


def difference(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max(float((first - second).abs().max()) for first, second in zip(some, others, strict=True))


def module_names() -> set[str]:
    """The modules whose weights the adapter's file holds."""
    return {name.split(".lora_")[0].split(".")[-1] for name in load_file(WEIGHTS)}


# each method and initialisation


@pytest.mark.slow
def test_the_merged_model_gives_the_logits_of_the_model_that_was_trained(trained: Trained) -> None:
    expected = logits_joined(trained.model)
    assert difference(expected, logits(load_model(BASE))) > 0.1
    assert difference(expected, logits(merged(trained.base))) < CLOSE


@pytest.mark.slow
def test_the_saved_adapter_on_the_base_it_was_trained_on_gives_the_same_logits(trained: Trained) -> None:
    base = train.load_base(trained.cfg)
    disable_repacking(base)
    loaded = PeftModel.from_pretrained(base, ADAPTER).eval()
    assert difference(logits_joined(loaded), logits_joined(trained.model)) < CLOSE


def test_a_merge_with_the_other_base_is_pefts_own_or_the_same_or_refused(trained: Trained) -> None:
    if trained.compensated:
        with pytest.raises(InputError, match=r"^merge\.base: .* loftq .*; set merge\.base=dequantized$"):
            merged(MergeBase.original)
    elif trained.base is MergeBase.original:
        expected = merged(MergeBase.original).state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in merged(MergeBase.dequantized).state_dict().items())
    else:
        actual = logits(merged(MergeBase.original))
        assert difference(actual, logits(PeftModel.from_pretrained(load_model(BASE), ADAPTER))) < CLOSE
        assert difference(actual, logits_joined(trained.model)) > 100 * CLOSE  # rounding is more than what floats lose


def test_every_linear_layer_has_learned(trained: Trained) -> None:
    weights, config = load_file(WEIGHTS), json.loads(CONFIG.read_text(encoding="utf-8"))
    assert module_names() == {name.split(".")[-1] for name in config["target_modules"]} == MODULES
    sides = 3 if trained.cfg.adapter.method.use_dora else 2
    assert len(weights) == 2 * 4 * sides
    assert all(tensor.any() and tensor.dtype is torch.float32 for tensor in weights.values())
    rank = 2 * 4 if moves_the_base(trained.cfg.adapter.init_lora_weights) else 4
    assert {tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name} == {config["r"]} == {rank}
    losses = curve("eval/loss")
    assert losses[4] < losses[2]


@pytest.mark.slow
def test_a_second_training_gives_the_same_bytes(trained: Trained) -> None:
    first = hashes()
    train.main(trained.cfg)
    assert hashes() == first


# what holds for some of them


@pytest.mark.parametrize("file", ["qlora", "qdora", "loftq", "pissa"])
def test_only_the_named_modules_are_trained_under(file: str, inside: Path) -> None:
    adapted = train_it(sections(ROOT, adapter=settings(file, target_modules=["o_proj", "down_proj"]), max_steps=1)).model
    assert module_names() == {"o_proj", "down_proj"}
    learning = {name.split(".lora_")[0].split(".")[-1] for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert learning == {"o_proj", "down_proj"}
    kinds = {type(module).__name__ for name, module in adapted.named_modules() if name.endswith("qkv_proj")}
    assert kinds == ({"Linear"} if file == "pissa" else {"Linear4bit"})  # held in 4 bits all the same


@pytest.mark.parametrize("file", ["qlora", "qdora"])
def test_evaluations_change_no_byte_of_what_is_trained_in_4_bits(file: str, inside: Path) -> None:
    train.main(sections(ROOT, adapter=settings(file), **QUICK))
    often = hashes()
    train.main(sections(ROOT, adapter=settings(file), eval_strategy="no", **QUICK))
    assert hashes() == often


@pytest.mark.parametrize("file", ["qlora", "pissa"])
def test_gradient_checkpointing_changes_memory_and_not_the_adapter_of(file: str, inside: Path) -> None:
    train.main(sections(ROOT, adapter=settings(file)))
    without = load_file(WEIGHTS)
    train.main(sections(ROOT, adapter=settings(file), gradient_checkpointing=True))
    for name, tensor in load_file(WEIGHTS).items():
        torch.testing.assert_close(tensor, without[name])


@pytest.mark.parametrize(("compute", "most"), [(None, 0.05), ("bfloat16", 0.05), ("float32", CLOSE)])
def test_the_compute_type_rounds_products_and_no_more(compute: str | None, most: float, inside: Path) -> None:
    chosen = settings("qlora", bnb_4bit_compute_dtype=compute)
    actual = train_it(sections(ROOT, adapter=chosen, bf16=compute is None, **QUICK))
    assert difference(logits_joined(actual.model), logits(merged(MergeBase.dequantized))) < most
    assert all(tensor.dtype is torch.float32 for tensor in load_file(WEIGHTS).values())


# a whole QLoRA


def test_a_qlora_adapter_goes_into_the_original_weights_and_an_int4_onnx_model_that_answers(inside: Path) -> None:
    write_jsonl(PREPARED / "test.jsonl", [row(number, "test") for number in range(6)])
    train.main(sections(ROOT, adapter=settings("qlora"), num_train_epochs=4, **QUICK))
    merge.main(merge.Config(MERGE))
    build.main(build.Config(recipe(block_size=32, accuracy_level=4, is_symmetric=True), MERGE, evaluation()))
    assert not list(ONNX.glob("quantization.json"))
    answers = OnnxModel(ONNX).answers(TEXTS, 9)
    assert len(answers) == len(TEXTS)
    assert any(answers)
    for candidate in ("merged", "onnx"):
        evaluate.main(candidate, evaluate.Config(evaluation()))
        assert json.loads((METRICS / f"evaluate/{candidate}.json").read_text(encoding="utf-8"))["rows"] == 6
