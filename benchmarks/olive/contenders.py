"""The contenders of benchmarks.olive: the same olive-config.json, imported and run here, and run by Olive."""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.olive import config
from benchmarks.processes import ROOT, Usage, environment, peer_python, run
from tunepress.core.errors import InputError
from tunepress.core.files import read_json, sha256
from tunepress.core.paths import ADAPTER, ONNX, TIMINGS

WEIGHTS = "adapter_model.safetensors"
EXPERIMENT = "olive_benchmark"
STAGES = ("prepare", "train", "merge", "build")
PASS = re.compile(r"Pass (\w+):\w+ finished in ([\d.]+) seconds")  # what Olive's engine logs


@dataclass(frozen=True)
class Outcome:
    """What a run used and where its models are."""

    usage: Usage  # of the whole command
    seconds: dict[str, float]  # of its steps train, merge and build, without those that it did not reach or took from a cache
    adapter: Path  # a folder in peft's layout
    onnx: Path | None  # the int4 model's folder
    error: str | None = None  # why it has no int4 model, in one line

    def hashes(self) -> dict[str, str]:
        """The sha256 of the adapter's weights and of the int4 model's, where there is one."""
        files = {"adapter": self.adapter / WEIGHTS} | ({"int4 model": self.onnx / "model.onnx.data"} if self.onnx else {})
        return {name: sha256(file) for name, file in files.items()}


class Contender(Protocol):
    """Makes an int4 model from an olive-config.json."""

    title: str

    def run(self, folder: Path, inputs: Path, scratch: Path) -> Outcome:
        """Does the whole work in a new folder with a copy of `inputs`."""

    def again(self, folder: Path, scratch: Path) -> Outcome:
        """Edits a training row in the folder of an earlier run, and runs the same command again."""


class Tunepress:
    """A clone of this project, in which the configuration is imported and run through DVC."""

    title = "Tunepress, imported"
    rows = Path("olive")  # in the clone

    def run(self, folder: Path, inputs: Path, scratch: Path) -> Outcome:
        """Imports and runs; only what is committed in this project is in the clone."""
        variables = self.variables(scratch)
        folder.mkdir()
        run("the clone", folder, variables, "git", "clone", "--quiet", ROOT, "project")
        project = folder / "project"
        shutil.copytree(inputs, project / self.rows)
        importer = (sys.executable, "-m", "tools.olive", self.rows / config.CONFIG, "--name", EXPERIMENT)
        run("the import", project, variables, *importer)
        commit(project, variables)
        # Olive validates nothing and tests nothing, so all rows are trained on.
        held_out = ("-S", "data.eval_dataset_size=0", "-S", f"data.test_files=[{self.rows / config.TEST}]")
        return self.outcome(project, variables, "exp", "run", "-S", f"+experiment={EXPERIMENT}", *held_out, "build")

    def again(self, folder: Path, scratch: Path) -> Outcome:
        """DVC decides what runs again."""
        config.edit(folder / "project" / self.rows)
        return self.outcome(folder / "project", self.variables(scratch), "repro", "build")

    def variables(self, scratch: Path) -> dict[str, str]:
        """With the project's interpreter first, which dvc.yaml calls `python`."""
        inherited = environment(scratch, kernels=False)
        return inherited | {"PATH": f"{Path(sys.executable).parent}:{inherited['PATH']}"}

    def outcome(self, project: Path, variables: dict[str, str], *command: str) -> Outcome:
        """Runs DVC; the memory of its children counts as its own."""
        usage = run(self.title, project, variables, "dvc", *command)
        seconds = {stage: float(read_json(project / TIMINGS / f"{stage}.json")["seconds"]) for stage in STAGES}
        train = seconds["prepare"] + seconds["train"]  # Olive's pass reads the rows too
        steps = {"train": train, "merge": seconds["merge"], "build": seconds["build"]}
        return Outcome(usage, steps, project / ADAPTER, project / ONNX)


class Olive:
    """`olive run`, in Olive's own environment."""

    title = "Olive 0.13.0"
    steps = {"lora": "train", "merge": "merge", "builder": "build"}  # noqa: RUF012

    def run(self, folder: Path, inputs: Path, scratch: Path) -> Outcome:
        """Runs the configuration unchanged, beside its rows."""
        shutil.copytree(inputs, folder)
        return self.outcome(folder, scratch)

    def again(self, folder: Path, scratch: Path) -> Outcome:
        """Olive's cache decides what runs again."""
        config.edit(folder)
        return self.outcome(folder, scratch)

    def outcome(self, folder: Path, scratch: Path) -> Outcome:
        """A failed pass is a result: what the passes before it made is kept."""
        command = (peer_python("olive", scratch), "-m", "olive", "run", "--config", config.CONFIG)
        usage, error = Usage(0, 0, 0), None
        try:
            usage = run(self.title, folder, environment(scratch, kernels=False), *command)
        except InputError as failed:
            error = str(failed)
        log = (folder / "output.log").read_text(encoding="utf-8", errors="replace")
        seconds = {self.steps[name]: float(duration) for name, duration in PASS.findall(log)}
        adapters = sorted(folder.glob(f"cache/**/{WEIGHTS}"), key=lambda file: file.stat().st_mtime)
        if not adapters:
            raise InputError(error or f"{self.title}: no adapter in its cache")
        model = folder / "output" / "model.onnx.data"
        error = None if model.exists() else error or "the builder left no model"
        return Outcome(usage, seconds, adapters[-1].parent, model.parent if model.exists() else None, error)


def commit(project: Path, variables: dict[str, str]) -> None:
    """Commits the experiment and the rows, from which `dvc exp run` starts."""
    for name, value in (("user.name", "benchmark"), ("user.email", "benchmark@localhost"), ("commit.gpgsign", "false")):
        run("git", project, variables, "git", "config", name, value)
    run("git", project, variables, "git", "add", "conf", str(Tunepress.rows))
    run("git", project, variables, "git", "commit", "--quiet", "--message=imported")


CONTENDERS: dict[str, Contender] = {"tunepress": Tunepress(), "olive": Olive()}
