"""compose: params.yaml follows conf/, a choice stays a choice, and what is wrong in conf/ is one line."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import compose_and_dump
from omegaconf import OmegaConf

from tools.cli import params as compose
from tunepress.config.params import Params
from tunepress.core.errors import InputError
from tunepress.core.params import COMPOSED, CONF, PARAMS, load, warn_if_stale

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with conf/ and nothing composed from it."""
    shutil.copytree(root / CONF, tmp_path / CONF)
    (tmp_path / COMPOSED).unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def composed(project: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same, composed."""
    compose.update(reset=False)
    capsys.readouterr()
    return project


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Runs `python -m tools.cli.params` and returns what it exits with."""
    monkeypatch.setattr(sys, "argv", ["compose", *arguments])
    try:
        compose.main()
    except SystemExit as ended:
        return ended.code
    return 0


def edit(path: str, old: str, new: str) -> None:
    text = (CONF / path).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (CONF / path).write_text(text.replace(old, new), encoding="utf-8")


def choose(*overrides: str) -> str:
    """Leaves params.yaml as `dvc exp apply` of an experiment with these overrides would."""
    text = compose.compose(list(overrides))
    PARAMS.write_text(text, encoding="utf-8")
    return text


def params() -> Any:
    return OmegaConf.load(PARAMS)


# composing


def test_a_fresh_project_gets_both_files_and_the_second_time_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose.update(reset=False)
    assert capsys.readouterr().out == "params.yaml: composed from conf/\nconf/composed.yaml: composed from conf/\n"
    assert PARAMS.read_bytes() == COMPOSED.read_bytes()
    before = PARAMS.stat().st_mtime_ns
    compose.update(reset=False)
    assert capsys.readouterr().out == ""
    assert PARAMS.stat().st_mtime_ns == before


def test_the_bytes_are_those_that_dvc_writes(composed: Path, root: Path, tmp_path: Path) -> None:
    for overrides in ([], ["+experiment=smoke"], ["train.eval_strategy=no", "data.labels=null"]):
        compose_and_dump(tmp_path / "dvc.yaml", str(composed / CONF), None, "config", str(root), overrides)
        assert choose(*overrides) == (tmp_path / "dvc.yaml").read_text(encoding="utf-8")


def test_the_committed_files_are_what_conf_gives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert COMPOSED.read_text(encoding="utf-8") == compose.compose()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment: str, composed: Path) -> None:
    text = compose.compose([f"+experiment={experiment}"])
    assert (text == COMPOSED.read_text(encoding="utf-8")) == (experiment == "default")


@pytest.mark.parametrize("base_model", ["smollm2_135m", "phi3_mini", "phi3_mini_azureml", "azureml", "tiny"])
def test_every_base_model_composes_with_every_dataset(base_model: str, composed: Path) -> None:
    for data in ("tone", "question_answer"):
        compose.compose([f"base_model={base_model}", f"data={data}"])


def test_a_path_of_ones_own_is_watched(composed: Path) -> None:
    config = OmegaConf.create(choose("base_model=folder", "base_model.path=own/model", "data.files=[rows/a.csv,rows/b/c.csv]"))
    assert config.dvc.base_model == "own/model"
    assert config.dvc.data[:2] == ["rows/a.csv", "rows/b/c.csv"]


# drift


def test_an_edit_of_conf_is_composed_again(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit("adapter/lora.yaml", "r: 16", "r: 8")
    compose.update(reset=False)
    assert params().adapter.r == 8
    assert PARAMS.read_bytes() == COMPOSED.read_bytes()
    assert "choice" not in capsys.readouterr().out


def test_a_key_that_conf_no_longer_has_goes(composed: Path) -> None:
    edit("config.yaml", "base_model: smollm2_135m", "base_model: tiny")
    compose.update(reset=False)
    edit("base_model/tiny.yaml", "  sliding_window: 1023\n", "")
    compose.update(reset=False)
    assert "sliding_window" not in params().base_model.architecture
    assert PARAMS.read_bytes() == COMPOSED.read_bytes()


def test_a_stage_says_that_params_are_stale_and_not_that_a_choice_is(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warn_if_stale()
    choose("adapter.r=4")
    warn_if_stale()
    assert capsys.readouterr().err == ""
    compose.update(reset=True)
    edit("adapter/lora.yaml", "r: 16", "r: 8")
    warn_if_stale()
    assert "params.yaml is stale: conf/ has changed" in capsys.readouterr().err


# choices


def test_a_choice_is_kept_and_named(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = choose("train.learning_rate=5e-4", "data.eval_dataset_size=0.1")
    compose.update(reset=False)
    assert PARAMS.read_text(encoding="utf-8") == text
    assert capsys.readouterr().out == (
        "params.yaml: kept your choice data.eval_dataset_size=0.1, train.learning_rate=0.0005 "
        "(conf/ says otherwise; `make params RESET=1` drops it)\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=smoke"],
        ["+experiment=phi3_mini_chat"],
        ["data.labels=null", "data.test_files=[data/raw/a.csv]"],
        ["train.eval_strategy=no", "adapter.target_modules=[o_proj]"],
        ["build.is_symmetric=null", "seed=1"],
        [
            "data=azureml_datastore",
            *(f"data.datastore.{name}=a" for name in ("subscription_id", "resource_group", "workspace_name")),
            "data.datastore.relative_path=rows.jsonl",
        ],
    ],
    ids=" ".join,
)
def test_every_choice_stays_to_the_byte(overrides: list[str], composed: Path) -> None:
    text = choose(*overrides)
    compose.update(reset=False)
    assert PARAMS.read_text(encoding="utf-8") == text


def test_a_choice_among_models_with_an_architecture_stays(composed: Path) -> None:
    edit("config.yaml", "base_model: smollm2_135m", "base_model: tiny")
    compose.update(reset=False)
    text = choose("base_model=smollm2_135m")  # no architecture, where conf/ has one
    compose.update(reset=False)
    assert PARAMS.read_text(encoding="utf-8") == text


def test_a_choice_survives_an_edit_of_another_key(composed: Path) -> None:
    choose("train.learning_rate=5e-4")
    edit("adapter/lora.yaml", "r: 16", "r: 8")
    for _ in range(2):
        compose.update(reset=False)
        assert (params().train.learning_rate, params().adapter.r) == (5e-4, 8)
        assert OmegaConf.load(COMPOSED).train.learning_rate == 1e-3


def test_a_choice_that_conf_comes_to_share_is_none_any_more(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choose("adapter.r=8")
    edit("adapter/lora.yaml", "r: 16", "r: 8")
    compose.update(reset=False)
    assert "choice" not in capsys.readouterr().out
    assert PARAMS.read_bytes() == COMPOSED.read_bytes()


def test_reset_drops_a_choice(composed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    choose("+experiment=smoke")
    assert command(monkeypatch, "--reset") == 0
    assert PARAMS.read_bytes() == COMPOSED.read_bytes()
    assert "choice" not in capsys.readouterr().out


# --check


def test_check_passes_what_is_composed_and_names_a_choice(
    composed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--check") == 0
    assert capsys.readouterr().out == ""
    choose("adapter.r=4")
    assert command(monkeypatch, "--check") == 0
    assert "kept your choice adapter.r=4 " in capsys.readouterr().out
    assert params().adapter.r == 4


def test_check_fails_on_drift_and_writes_nothing(
    composed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = PARAMS.read_bytes(), COMPOSED.read_bytes()
    edit("adapter/lora.yaml", "r: 16", "r: 8")
    assert command(monkeypatch, "--check") == 1
    assert "params.yaml is stale" in capsys.readouterr().err
    assert (PARAMS.read_bytes(), COMPOSED.read_bytes()) == before


def test_check_fails_where_nothing_was_composed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "--check") == 1
    compose.update(reset=False)
    PARAMS.unlink()
    assert command(monkeypatch, "--check") == 1


# what is wrong in conf/


@pytest.mark.parametrize(
    ("path", "old", "new", "named"),
    [
        ("adapter/lora.yaml", "r: 16", "rank: 16", "rank"),
        ("train/default.yaml", "learning_rate: 1.0e-3", "learning_rate: fast", "learning_rate"),
        ("build/cpu_int4.yaml", "block_size: 32", "block_size: 1.5", "block_size"),
        ("data/tone.yaml", "overlong: drop", "overlong: keep", "overlong"),
        ("config.yaml", "base_model: smollm2_135m", "base_model: gpt_5", "gpt_5"),
        ("config.yaml", "seed: 0", "sed: 0", "sed"),
        ("config.yaml", "seed: 0", "seed: ???", "seed"),
        ("adapter/lora.yaml", "r: 16", "r: [16", "lora.yaml"),
        ("report/default.yaml", "${base_model.name}", "${base_model.nam}", "nam"),
    ],
)
def test_a_mistake_in_conf_is_one_line_that_names_it(
    path: str, old: str, new: str, named: str, composed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = PARAMS.read_bytes(), COMPOSED.read_bytes()
    edit(path, old, new)
    message = command(monkeypatch)
    assert isinstance(message, str)
    assert "\n" not in message
    assert message.startswith("conf/")
    assert named in message
    assert (PARAMS.read_bytes(), COMPOSED.read_bytes()) == before


BROKEN = [
    (b"a: 1\nb: [2\n", " line 3: not YAML (expected ',' or ']', but got '<stream end>')"),
    (b"a: 1\nb: \xe9\n", " line 2: not UTF-8"),
    (b"a: 1\nb: \0\0\0", " line 2: not YAML (unacceptable character #x0000: special characters are not allowed)"),
    (b"a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", " line 2: a merge conflict that is not resolved"),
    (b"a: 1\na: 2\n", " line 2: not YAML (found duplicate key a)"),
    (b"3\n", ": must be a mapping of keys to values (Invalid loaded object type: int)"),
]
OF_PARAMS = [
    *BROKEN,
    (b"- a\n", ": must be a mapping of keys to values, got a list"),
    (b"", ": is empty"),
    (b"# to be filled in\n", ": is empty"),
]


@pytest.mark.slow
@pytest.mark.parametrize("path", [PARAMS, COMPOSED])
@pytest.mark.parametrize(("content", "message"), OF_PARAMS)
def test_a_broken_file_is_one_line_with_its_cure_which_works(
    content: bytes, message: str, path: Path, composed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(content)
    cure = "restore it from git, or `make params RESET=1` writes what conf/ gives"
    assert command(monkeypatch) == f"{path}{message}; {cure}"
    assert path.read_bytes() == content
    assert command(monkeypatch, "--reset") == 0
    assert PARAMS.read_bytes() == COMPOSED.read_bytes() != content


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_a_broken_file_of_conf_is_one_line(content: bytes, message: str, composed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (CONF / "train/default.yaml").write_bytes(content)
    assert command(monkeypatch) == f"conf/train/default.yaml{message}"


def test_a_params_yaml_that_was_cut_is_no_choice(composed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PARAMS.read_text(encoding="utf-8")
    PARAMS.write_text(text[: text.index("evaluate:")], encoding="utf-8")
    assert str(command(monkeypatch)).startswith(
        "params.yaml: no section 'evaluate'; restore it from git, or `make params RESET=1`"
    )


@pytest.mark.parametrize(("content", "message"), OF_PARAMS[:-2])
def test_a_stage_says_so_too(content: bytes, message: str, composed: Path) -> None:
    PARAMS.write_bytes(content)
    with pytest.raises(InputError) as refused:
        load(Params, [])
    assert str(refused.value) == f"params.yaml{message}"


def test_no_as_the_comment_in_conf_has_it_is_the_word(composed: Path) -> None:
    edit("train/default.yaml", "eval_strategy: steps", 'eval_strategy: "no"')
    assert OmegaConf.create(compose.compose()).train.eval_strategy == "no"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("build=cpu", ["'build/cpu'", "cpu_fp32, cpu_int4, ", "webgpu_int8"]),
        ("+experiment=smoek", ["'experiment/smoek'", "phi3_mini_lora", "smoke"]),
        ("+experiment=null", ["+experiment=null"]),
    ],
)
def test_a_choice_that_there_is_not_is_told_with_all_that_there_are(override: str, named: list[str], project: Path) -> None:
    with pytest.raises(InputError) as refused:
        compose.compose([override])
    message = str(refused.value)
    assert message.startswith("conf/: ")
    assert "\n" not in message
    assert "search path" not in message
    for part in named:
        assert part in message
