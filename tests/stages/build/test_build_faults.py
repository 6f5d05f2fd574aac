"""build, when it is killed or the disk is full: the earlier model stays, nothing half-written is left, the next run is whole."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.stages.built import PROMPT
from tests.stages.outputs import hashes, started
from tunepress.core.files import write_jsonl
from tunepress.core.paths import MERGED, ONNX, PREPARED
from tunepress.models.random_model import write_random_model
from tunepress.text.segments import context, learned

SHAPE = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 38 MB."""
    folder = tmp_path_factory.mktemp("faults") / "merged"
    folder.mkdir()
    write_random_model(SHAPE, 0, folder)
    PROMPT.save(folder)
    return folder


@pytest.fixture
def project(merged: Path, tmp_path: Path) -> Path:
    """A project in which `python -m stages.build` can run, with an earlier model."""
    (tmp_path / ONNX).mkdir(parents=True)
    (tmp_path / ONNX / "earlier").write_text("model")
    (tmp_path / MERGED).symlink_to(merged)
    (tmp_path / PREPARED).mkdir(parents=True)
    rows = [{"segments": [context(f"Text: day {n}\nTone: "), learned("joy", "joy")]} for n in range(8)]
    write_jsonl(tmp_path / PREPARED / "train.jsonl", rows)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["build.algo_config=k_quant_mixed", "build.algo_config=gptq"])
def test_a_killed_build_leaves_the_earlier_model_and_the_next_run_is_whole(recipe: str, project: Path) -> None:
    partial, written = project / ONNX.with_name(".onnx.partial"), "model.onnx.data"
    killed = started("build", project, recipe)
    while killed.poll() is None and not (partial / written).exists():
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in (project / ONNX).iterdir()] == ["earlier"]
    assert (partial / written).exists()
    actual = []
    for _ in range(2):
        again = started("build", project, recipe)
        _, error = again.communicate()
        assert again.returncode == 0, error
        actual.append(hashes(project / ONNX))
    assert actual[0] == actual[1]
    assert not partial.exists()


@pytest.mark.slow
@pytest.mark.parametrize("bytes_of_a_file", [10_000, 3_000_000], ids=["the graph", "the weights"])
def test_a_disk_that_takes_no_more_ends_in_one_line_and_leaves_the_earlier_model(bytes_of_a_file: int, project: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_of_a_file}, {bytes_of_a_file}))"
    full = started(
        "build", project, before=limit
    )  # an error of the operating system while the file grows, as that of a full disk
    _, error = full.communicate()
    lines = [line for line in error.splitlines() if line.startswith("build: ")]
    assert full.returncode == 1
    assert len(lines) == 1 and "file too large" in lines[0].lower()
    assert "Traceback" not in error
    assert [file.name for file in (project / ONNX).iterdir()] == ["earlier"]
    assert not (project / ONNX).with_name(".onnx.partial").exists()
