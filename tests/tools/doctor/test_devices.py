"""Devices: what the recipe trains and builds against what is here; NVIDIA's driver against CUDA by the containers' own check."""

from dataclasses import replace

import pytest
import torch

from tests.tools.doctor.conftest import Read
from tools.doctor import devices
from tools.doctor.check_image import Cuda, Driver
from tools.doctor.finding import State

NONE = Cuda(None, None, None, None, None, None)
GOOD = Cuda(Driver("580.95.05", "13.0"), 1, "13.0", "9.20.0", "13.0", None)
no_gpu_here = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_bfloat16_without_a_gpu_is_a_warning_and_no_error(read: Read) -> None:
    finding = devices.gpu([], read("+experiment=olive_example"))
    assert finding.state is State.warning
    assert "docker-train" in finding.advice
    assert devices.gpu(["NVIDIA X"], read("+experiment=olive_example")).state is State.ok
    assert devices.gpu([], read()).state is State.ok


@no_gpu_here
def test_phi3_minis_values_train_on_a_cpu_too(read: Read) -> None:
    assert devices.training(read("+experiment=olive_example")).state is State.ok


@no_gpu_here
@pytest.mark.parametrize(
    "override", ["train.tf32=true", "train.use_liger_kernel=true", "train.attn_implementation=flash_attention_2"]
)
def test_what_the_stage_would_refuse_is_an_error(override: str, read: Read) -> None:
    finding = devices.training(read(override))
    assert finding.state is State.error
    assert override.removeprefix("train.").partition("=")[0] in finding.detail


@no_gpu_here
@pytest.mark.parametrize("build", ["cuda_int4", "dml_int4", "webgpu_int4", "trt_rtx_fp16"])
def test_a_model_that_cannot_be_evaluated_here_is_an_error_with_what_it_needs(build: str, read: Read) -> None:
    finding = devices.provider(read(f"build={build}").params.build.execution_provider)
    assert finding.state is State.error
    assert finding.advice.startswith("it needs ")


def test_a_model_for_cpus_runs_everywhere(read: Read) -> None:
    assert devices.provider(read().params.build.execution_provider).state is State.ok


def test_no_driver_is_fine_for_cpus_and_a_warning_for_cuda(read: Read) -> None:
    assert devices.driver(NONE, read()).state is State.ok
    assert devices.driver(NONE, read("environment=cuda13")).state is State.warning
    assert devices.driver(NONE, read("environment=cuda13", "build=cuda_int4")).state is State.error


def test_driver_cuda_and_onnxruntime_are_compared_with_the_pins(read: Read) -> None:
    recipe = read("environment=cuda13", "build=cuda_int4")
    assert devices.driver(GOOD, recipe).detail == (
        "driver 580.95.05 runs CUDA 13.0, torch is built for CUDA 13.0, onnxruntime for CUDA 13.0"
    )
    old = devices.driver(replace(GOOD, driver=Driver("570.86.15", "12.8")), recipe)
    assert (old.state, old.advice) == (State.error, "update it, or use the image for cuda12")
    other = devices.driver(replace(GOOD, onnxruntime="12.8"), recipe)
    assert other.detail == "cuda13: onnxruntime was built for CUDA 12.8, the lock has CUDA 13.0"


def test_a_gpu_that_a_cpu_build_of_torch_leaves_idle_is_a_warning(read: Read) -> None:
    assert devices.driver(replace(GOOD, torch=None, gpus=0, onnxruntime=None), read()).state is State.warning


def test_the_cores_are_told(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_cores", lambda: 3)
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 64)
    assert next(devices.findings(read())).detail == "3 of 64 cores for this process"
