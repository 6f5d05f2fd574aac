"""The recipe: what is asked about, and whether models/base is its own."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tools.doctor.recipe import Recipe
from tunepress.core.errors import InputError


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the default recipe has run."""
    (tmp_path / "conf").symlink_to(root / "conf")
    shutil.copyfile(root / "conf/composed.yaml", tmp_path / "params.yaml")
    base_model = OmegaConf.load(root / "conf/composed.yaml").base_model
    OmegaConf.save({"stages": {"fetch": {"params": {"params.yaml": {"base_model": base_model}}}}}, tmp_path / "dvc.lock")
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/config.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_overrides_it_is_params_yaml(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert text.count("learning_rate: 0.001") == 1
    (project / "params.yaml").write_text(text.replace("learning_rate: 0.001", "learning_rate: 0.5"), encoding="utf-8")
    assert Recipe.read([]).params.train.learning_rate == 0.5
    assert Recipe.read(["train.learning_rate=0.25"]).params.train.learning_rate == 0.25
    assert Recipe.read(["seed=1"]).params.train.learning_rate == 0.001


def test_without_params_yaml_it_is_what_conf_gives(project: Path) -> None:
    (project / "params.yaml").unlink()
    assert Recipe.read([]).params.base_model.name == "SmolLM2-135M-Instruct"


def test_the_base_model_is_at_hand_where_it_was_fetched_for_this_recipe(project: Path) -> None:
    assert Recipe.read([]).base_fetched
    assert Recipe.read(["train.learning_rate=0.25"]).base_fetched
    assert not Recipe.read(["+experiment=smoke"]).base_fetched
    (project / "models/base/config.json").unlink()
    assert not Recipe.read([]).base_fetched


def test_a_project_in_which_nothing_has_run_has_none(project: Path) -> None:
    (project / "dvc.lock").unlink()
    assert not Recipe.read([]).base_fetched


@pytest.mark.parametrize("text", ["", "stages:\n", "stages: {fetch: {params: {params.yaml: {base_model: x}}}}\n"])
def test_a_lock_that_holds_no_base_model_is_as_none(text: str, project: Path) -> None:
    (project / "dvc.lock").write_text(text, encoding="utf-8")
    assert not Recipe.read([]).base_fetched


@pytest.mark.parametrize("file", ["params.yaml", "dvc.lock"])
def test_a_file_that_a_merge_left_in_conflict_is_named(file: str, project: Path) -> None:
    with (project / file).open("a", encoding="utf-8") as broken:
        broken.write("<<<<<<< ours\n")
    with pytest.raises(InputError, match=rf"^{file} line \d+: a merge conflict that is not resolved$"):
        Recipe.read([])


def test_a_lock_that_is_a_list_is_named(project: Path) -> None:
    (project / "dvc.lock").write_text("- fetch\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^dvc.lock: must be a mapping of keys to values, got a list$"):
        Recipe.read([])


def test_a_wrong_value_in_params_yaml_is_named(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("\nseed: 0", "\nseed: many"), encoding="utf-8")
    with pytest.raises(InputError, match=r"^params.yaml: .*seed"):
        Recipe.read([])
