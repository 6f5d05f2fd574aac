"""One stage at a time in a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunepress.core.errors import InputError
from tunepress.core.lock import stage_lock

HOLD = "import sys; from tunepress.core.lock import stage_lock\nwith stage_lock('train'): print(flush=True); sys.stdin.read()"


def test_a_stage_that_another_process_runs_is_named_until_it_ends(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], env=os.environ | {"PYTHONPATH": str(root)}, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        for _ in range(2):
            message = rf"^train \(process {process.pid}\) is running in this folder; wait until it ends$"
            with pytest.raises(InputError, match=message), stage_lock("merge"):
                pass
        process.kill()
    with stage_lock("merge"):
        pass


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"PET_NNODES": "2"}, {"RANK": "3", "PET_NNODES": "2"}])
def test_of_several_processes_only_the_first_takes_it(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with stage_lock("train"):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with stage_lock("train"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(InputError), stage_lock("train"):
            pass
