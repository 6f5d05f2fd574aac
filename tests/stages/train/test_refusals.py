"""What `adapter` and `train` of params.yaml cannot say together, refused before a model is loaded; and what schedules do."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.train import stage as train
from tests.stages.training import curve, refusal, sections
from tunepress.config.adapter import INITIALIZATIONS, is_initialization, moves_the_base, names_modules

pytestmark = pytest.mark.usefixtures("inside")

NAMES = "true or one of gaussian, orthogonal, olora, pissa, pissa_niter_<n>, loftq"
LAYERS = "the model has down_proj, gate_up_proj, lm_head, o_proj, qkv_proj"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""
    monkeypatch.setattr(train, "load_base", lambda cfg, casts: pytest.fail("the base model is loaded"))


# the adapter


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        ({"init_lora_weights": "loftq"}, "init_lora_weights: loftq compensates for quantization, .*=lora has none; use qlora"),
        ({"init_lora_weights": "loftq", "method": "dora"}, "init_lora_weights: loftq .*=dora has none; use qlora"),
        (
            {"init_lora_weights": "pissa", "method": "qlora"},
            "init_lora_weights: pissa needs float weights, .*; use loftq, or lora",
        ),
        (
            {"init_lora_weights": "pissa_niter_4", "method": "qdora"},
            "init_lora_weights: pissa_niter_4 needs float .*; use loftq, .*",
        ),
        (
            {"init_lora_weights": "olora", "method": "qlora"},
            "init_lora_weights: olora needs float weights, .*; use loftq, or lora",
        ),
        (
            {"init_lora_weights": "pissa", "method": "dora"},
            "init_lora_weights: pissa .* of dora; use lora or rslora, or true here",
        ),
        (
            {"init_lora_weights": "olora", "method": "dora"},
            "init_lora_weights: olora .* of dora; use lora or rslora, or true here",
        ),
        ({"bnb_4bit_quant_type": "nf4"}, "bnb_4bit_quant_type: .*=lora does not quantize; use qlora or qdora, or null here"),
        ({"bnb_4bit_use_double_quant": False}, "bnb_4bit_use_double_quant: .*=lora does not quantize; .*, or null here"),
        ({"bnb_4bit_compute_dtype": "bfloat16", "method": "dora"}, "bnb_4bit_compute_dtype: .*=dora does not quantize; .*"),
        ({"init_lora_weights": "eva"}, f"init_lora_weights: must be {NAMES}, got 'eva'"),
        ({"init_lora_weights": "pissa_niter_<n>"}, f"init_lora_weights: must be {NAMES}, got 'pissa_niter_<n>'"),
        ({"init_lora_weights": False}, f"init_lora_weights: must be {NAMES}, got False"),
        ({"init_lora_weights": None}, f"init_lora_weights: must be {NAMES}, got None"),
        ({"init_lora_weights": "orthogonal", "r": 5}, "r: must be even with init_lora_weights=orthogonal, got 5"),
        ({"method": "qlora", "bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type: must be one of nf4, fp4, got 'int4'"),
        (
            {"method": "qlora", "bnb_4bit_compute_dtype": "int8"},
            "bnb_4bit_compute_dtype: must be one of float32, .*, float16, got 'int8'",
        ),
        ({"init_lora_weights": "pissa", "r": 65}, "r: must be at most 64 with init_lora_weights=pissa and this model, got 65"),
        (
            {"init_lora_weights": "pissa_niter_4", "r": 65},
            "r: must be at most 64 with init_lora_weights=pissa_niter_4 and this model, got 65",
        ),
        ({"init_lora_weights": "olora", "r": 65}, "r: must be at most 64 with init_lora_weights=olora and this model, got 65"),
        (
            {"init_lora_weights": "loftq", "r": 65, "method": "qlora"},
            "r: must be at most 64 with init_lora_weights=loftq and this model, got 65",
        ),
        ({"r": 0}, "r: must be at least 1, got 0"),
        ({"lora_dropout": 1.0}, "lora_dropout: must be at least 0 and below 1, got 1.0"),
        ({"lora_dropout": -0.1}, "lora_dropout: must be at least 0 and below 1, got -0.1"),
        ({"target_modules": []}, "target_modules: must be all-linear, a list of names or .*, got \\[\\]"),
        ({"target_modules": None}, "target_modules: must be all-linear, a list of names or .*, got None"),
        ({"target_modules": "("}, "target_modules: must be all-linear, a list of names or .*, got '\\('"),
        ({"target_modules": ["o_proj", 3]}, "target_modules: must be all-linear, a list of names or .*, got .*"),
        ({"target_modules": ["q_proj"], "method": "qlora"}, f"target_modules: \\['q_proj'\\] match nothing; {LAYERS}"),
        ({"target_modules": ["norm"]}, f"target_modules: \\['norm'\\] match more than layers; {LAYERS}"),
        ({"target_modules": ["embed_tokens"], "init_lora_weights": "pissa"}, "target_modules: .*=pissa needs linear layers, .*"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(f"{name}={chosen}" for name, chosen in value.items()),
)
def test_what_an_adapter_cannot_be_is_told_in_one_line_that_says_what_can(
    adapter: dict[str, Any], says: str, root: Path, unloaded: None
) -> None:
    assert_says(refusal(sections(root, adapter=adapter)), f"adapter.{says}")


@pytest.mark.parametrize("name", [*INITIALIZATIONS[:4], "loftq", "pissa_niter_1", "pissa_niter_16"])
def test_the_names_of_initializations_are_known(name: str) -> None:
    assert is_initialization(name)
    assert moves_the_base(name) == (name.startswith("pissa") or name == "olora")


@pytest.mark.parametrize("name", ["", "Pissa", "pissa_niter", "pissa_niter_", "pissa_niter_-1", "gaussian\n", True, ["pissa"]])
def test_what_only_looks_like_an_initialization_is_none(name: Any) -> None:
    assert not is_initialization(name)


@pytest.mark.parametrize("modules", ["all-linear", ".*proj", ["o_proj"], ("o_proj", "down_proj")])
def test_modules_are_named_in_three_ways(modules: Any) -> None:
    assert names_modules(modules)


# the training


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"early_stopping_patience": 2}, "early_stopping_patience: needs train.load_best_model_at_end=true; .*"),
        ({"load_best_model_at_end": True, "save_strategy": "no"}, "load_best_model_at_end: needs evaluations .* to steps"),
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "load_best_model_at_end: needs evaluations .* to steps"),
        ({"load_best_model_at_end": True, "save_steps": 3}, ".*load_best_model_at_end requires .* multiple of 2."),
        ({"fsdp": True}, "fsdp: spreads the model over processes, .* is 1; set it to the number of GPUs"),
        ({"fsdp_config": {"cpu_offload": True}}, "fsdp_config: set, but train.fsdp is false; .*"),
        (
            {"fsdp": True, "num_processes": 2, "fsdp_config": {"cpu_offload": True}},
            "fsdp_config.cpu_offload: not supported; leave it out, adapter=qlora needs less memory",
        ),
        ({"num_processes": 0}, "num_processes: must be at least 1, got 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: must be at least 1, got 0"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size: must be at least 1, got 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: must be at least 1, got 0"),
        ({"num_train_epochs": 0}, "num_train_epochs: must be above 0 unless train.max_steps is set, got 0.0"),
        ({"optim": "adamm"}, " adamm is not a valid OptimizerNames, please select one of .*'adamw_torch'.*"),
        ({"lr_scheduler_type": "linaer"}, " linaer is not a valid SchedulerType, please select one of .*'linear'.*"),
        ({"warmup_steps": -1}, " Got warmup_steps = -1.0, Expected value warmup_steps >= 0"),
        *[
            ({name: steps}, f"{name}: must be a whole number of steps from 1, or a share of all steps below 1, got {steps}")
            for name in ("logging_steps", "eval_steps", "save_steps")
            for steps in (0, -1, -0.5, 1.5, float("nan"), float("inf"))
        ],
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(f"{name}={chosen}" for name, chosen in value.items()),
)
def test_what_a_training_cannot_be_is_told_in_one_line(settings: dict[str, Any], says: str, root: Path, unloaded: None) -> None:
    assert_says(refusal(sections(root, **settings)), f"train[.:]{says}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it may be used on a GPU")
def test_liger_kernels_are_refused_without_a_gpu(root: Path, unloaded: None) -> None:
    message = refusal(sections(root, use_liger_kernel=True))
    assert message == "train.use_liger_kernel: needs a GPU and the package liger-kernel; set it to false"


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        ("linear", {"min_lr": 1e-5}),
        ("cosine_with_min_lr", {}),
        ("cosine_with_min_lr", {"min_lrr": 1e-5}),
        ("warmup_stable_decay", {}),
    ],
)
def test_arguments_that_a_schedule_does_not_have_are_refused(
    schedule: str, arguments: dict[str, Any], root: Path, unloaded: None
) -> None:
    message = refusal(sections(root, lr_scheduler_type=schedule, lr_scheduler_kwargs=arguments))
    assert message.startswith("train.lr_scheduler_kwargs: ")


def assert_says(message: str, pattern: str) -> None:
    assert re.fullmatch(pattern, message), message


# schedules


def learning_rates(root: Path, schedule: str, warmup: float = 2, **arguments: Any) -> list[float]:
    """The learning rate of ten steps in thousandths, from a peak of 1e-3."""
    train.main(
        sections(
            root, max_steps=10, lr_scheduler_type=schedule, lr_scheduler_kwargs=arguments, warmup_steps=warmup, eval_strategy="no"
        )
    )
    return [rate * 1e3 for rate in curve("train/learning_rate").values()]


def half_cosine(step: int, low: float = 0.0) -> float:
    """Down from 1 at step 2 to `low` at step 10."""
    return low + (1 - low) * (1 + math.cos(math.pi * (step - 2) / 8)) / 2


def test_linear_warms_up_and_falls_to_nothing(root: Path) -> None:
    assert learning_rates(root, "linear") == pytest.approx([0, 0.5, *((10 - step) / 8 for step in range(2, 10))])


def test_a_warmup_below_1_is_a_share_of_the_steps(root: Path) -> None:
    assert learning_rates(root, "linear", warmup=0.2) == pytest.approx([0, 0.5, *((10 - step) / 8 for step in range(2, 10))])


def test_cosine_falls_in_half_a_wave(root: Path) -> None:
    assert learning_rates(root, "cosine") == pytest.approx([0, 0.5, *map(half_cosine, range(2, 10))])


def test_cosine_with_min_lr_ends_at_that(root: Path) -> None:
    actual = learning_rates(root, "cosine_with_min_lr", min_lr=1e-4)
    assert actual == pytest.approx([0, 0.5, *(half_cosine(step, 0.1) for step in range(2, 10))])


def test_constant_with_warmup_stays(root: Path) -> None:
    assert learning_rates(root, "constant_with_warmup") == pytest.approx([0, 0.5, *[1] * 8])


def test_warmup_stable_decay_rises_stays_and_falls(root: Path) -> None:
    actual = learning_rates(root, "warmup_stable_decay", num_decay_steps=4)
    falling = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert actual == pytest.approx([0, 0.5, *[1] * 4, *falling])
