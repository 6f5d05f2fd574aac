"""Disk and memory: the figures of the recipes that come with the project, and too little of either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.tools.doctor.conftest import Read
from tools.doctor import resources
from tools.doctor.finding import Finding, State
from tools.doctor.recipe import Recipe, outline_of

GB = 10**9
Set = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets the free disk and memory, in GB."""

    def set_free(disk: float = 1000, memory: float = 1000) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk * GB))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(memory * GB)))
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("tunepress.core.cgroups.memory_left", lambda: 1 << 62)

    return set_free


def findings(recipe: Recipe) -> dict[str, Finding]:
    return {finding.subject: finding for finding in resources.findings(recipe)}


def test_the_shapes_of_the_recipes_are_known_before_they_are_fetched(read: Read) -> None:
    for overrides, parameters in ((["base_model=phi3_mini"], 3_821_079_552), ([], 134_515_008)):
        model = outline_of(read(*overrides))
        assert model is not None
        assert resources.base_parameters(model) == parameters


def test_the_default_fits_a_laptop_and_phi3_mini_does_not(read: Read, machine: Set) -> None:
    machine(disk=10, memory=16)
    assert {finding.state for finding in findings(read()).values()} == {State.ok}
    phi3 = findings(read("+experiment=olive_example"))
    assert phi3["disk"].state is State.error
    assert "needed" in phi3["disk"].detail
    assert phi3["memory to train"].state is State.warning  # rows of 2,048 tokens do not fit, short ones do
    in_float32 = findings(read("+experiment=olive_example", "train.bf16=false"))["memory to train"]
    assert in_float32.state is State.warning  # on a CPU the base model stays in 16 bits
    assert findings(read("+experiment=olive_example", "train.bf16=false", "adapter=dora"))["memory to train"].state is State.error


def test_phi3_mini_in_bfloat16_is_counted_once_in_the_hubs_cache_and_twice_here(read: Read) -> None:
    recipe = read("+experiment=olive_example")
    model = outline_of(recipe)
    assert model is not None
    usage = resources.disk_usage(recipe, model)
    base = 2 * 3_821_079_552
    assert base in usage.values()
    assert 2 * base < usage[Path.cwd()] < 2.7 * base


def test_low_disk_is_an_error_little_to_spare_a_warning(read: Read, machine: Set) -> None:
    recipe = read()
    states = []
    for free in (0.5, 1.4, 3):
        machine(disk=free)
        states.append(findings(recipe)["disk"].state)
    assert states == [State.error, State.warning, State.ok]


def test_what_is_there_already_needs_no_room(
    read: Read, root: Path, tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read("+experiment=smoke")
    monkeypatch.chdir(tmp_path)
    for name in ("base", "merged", "onnx"):
        shutil.copytree(tiny_phi3, tmp_path / "models" / name)
    (tmp_path / ".dvc").mkdir()
    fetched = Recipe(recipe.params, base_fetched=True)
    before, after = (resources.disk_usage(variant, outline_of(recipe) or pytest.fail()) for variant in (recipe, fetched))
    assert after[tmp_path] < before[tmp_path]


def test_too_little_memory_for_the_weights_alone_is_an_error_and_names_what_takes_less(read: Read, machine: Set) -> None:
    machine(memory=6)
    by_subject = findings(read("+experiment=olive_example"))
    assert by_subject["memory to train"].state is State.error
    assert "adapter=qlora" in by_subject["memory to train"].advice
    assert by_subject["memory to build"].state is State.warning


def test_memory_that_is_not_checked_is_a_warning(read: Read, machine: Set) -> None:
    machine(memory=6)
    finding = findings(read("+experiment=olive_example"))["memory to train"]
    assert "train.check_memory=false" in finding.advice
    unchecked = findings(read("+experiment=olive_example", "train.check_memory=false"))["memory to train"]
    assert (finding.state, unchecked.state) == (State.error, State.warning)


def test_modules_that_the_model_does_not_have_are_an_error_before_it_is_fetched(read: Read) -> None:
    (finding,) = resources.findings(read("+experiment=olive_example", "adapter.target_modules=[q_proj]"))
    assert finding.state is State.error
    assert "qkv_proj" in finding.detail


def test_a_model_of_another_name_is_told_to_be_unknown(read: Read) -> None:
    (finding,) = resources.findings(read("base_model=phi3_mini", "base_model.name=mine"))
    assert finding.state is State.warning


def test_a_folder_without_a_model_is_an_error(read: Read, tmp_path: Path) -> None:
    (finding,) = resources.findings(read("base_model=folder", f"base_model.path={tmp_path}"))
    assert finding.state is State.error
    assert "no config.json" in finding.detail


def test_an_architecture_that_fetch_refuses_is_an_error_before_it_is_there(read: Read, machine: Set, tmp_path: Path) -> None:
    machine()
    random = findings(read("base_model=tiny", "base_model.architecture.model_type=olmo"))["base model"]
    assert random.state is State.error
    assert "OlmoForCausalLM is not supported (the builder's graph computes other logits); use a model of " in random.detail
    (tmp_path / "config.json").write_text('{"model_type": "olmo", "architectures": ["OlmoForCausalLM"]}', encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    local = findings(read("base_model=folder", f"base_model.path={tmp_path}"))["base model"]
    assert local.detail.startswith(f"{tmp_path}/config.json: OlmoForCausalLM is not supported (")
