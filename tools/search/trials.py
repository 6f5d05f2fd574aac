"""The search itself: the default recipe, then one proposal after the other, until there were enough."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.search.clone import Clone
from tools.search.figures import Figures, axes, figure, limits, resolution
from tools.search.schema import SPLIT, Search
from tools.search.space import overrides_of
from tools.search.study import Proposals
from tools.search.verdict import Trial, Verdict, judge
from tunepress.config.evaluate import Split
from tunepress.core.errors import InputError
from tunepress.core.files import remove
from tunepress.core.lock import file_lock

Say = Callable[[str], None]


class Trials:
    """Runs the trials of one search."""

    def __init__(self, name: str, search: Search, folder: Path, say: Say, stage: Say) -> None:
        """`say` is told what happened, `stage` what is going on."""
        self.search, self.folder, self.say, self.stage, self.name = search, folder, say, stage, name
        self.failed: dict[str, Trial] = {}

    def run(self) -> Verdict:
        """Runs what is left to run and judges all by the validation rows; the winner's figures on the test rows come last.

        Raises:
            InputError: the default recipe fails, or has no figure of a name that the search asks for.
        """
        with file_lock(self.folder / "lock", self.already_running):
            with file_lock(self.folder / "trial.lock", self.wait):
                self.clone = Clone(self.name, self.folder / "clone", self.search.measured_here)
            default = self.default()
            if told := resolution(default.figures):
                self.say(told)
            bounds = limits(self.search.constraints, default.figures)
            proposals = Proposals(self.search, self.clone.commit, self.folder / "study.log")
            self.failed = {trial.name: trial for trial in proposals.trials() if trial.reason}
            while proposal := proposals.next():
                count = f"{len(proposals.told) + 1} of {proposals.wanted}: "
                proposals.tell(proposal, self.attempt(proposal.params, count), bounds)
            verdict = judge(self.search, [default, *proposals.trials()])
            chosen = {trial.name: trial for trial in (verdict.winner, default) if verdict.winner and trial}
            verdict = replace(verdict, tested=[self.attempt(trial.choices, split=Split.test) for trial in chosen.values()])
            remove(self.clone.folder)
            return verdict

    def default(self) -> Trial:
        """The recipe that conf/ gives, which the others are compared with."""
        trial = self.attempt({})
        if not trial.figures:
            raise InputError(f"without the default recipe nothing can be compared: {trial.reason}")
        return trial

    def attempt(self, choices: dict[str, Any], count: str = "", split: Split = Split.validation) -> Trial:
        """Runs a recipe, unless it has an experiment already or has failed already.

        On other rows it is another experiment, of which DVC runs the evaluation alone.
        """
        overrides = [*self.search.overrides, f"{SPLIT}={split.value}", *overrides_of(choices)]
        trial, start = Trial(self.clone.name_of(overrides), choices), time.monotonic()
        said = f"{count}{trial.name} ({trial.label}, {split.value} rows)"
        if trial.name in self.failed:
            return self.failed[trial.name]
        try:
            known = self.clone.figures(trial.name)
            trial = replace(trial, figures=known or self.measure(trial, overrides, split))
            judged = ", ".join(f"{metric} {figure(metric, trial.figures):.5g}" for metric in axes(self.search))
        except InputError as error:
            self.failed[trial.name] = replace(trial, figures={}, reason=str(error))
            self.say(f"{said} failed: {error}")
            return self.failed[trial.name]
        self.say(f"{said}: {judged}, {'known' if known else f'{time.monotonic() - start:.0f} s'}")
        return trial

    def measure(self, trial: Trial, overrides: list[str], split: Split) -> Figures:
        """Runs a recipe and reads its figures."""
        with file_lock(self.folder / "trial.lock", self.wait) as lock:
            message = f"search {self.name}: {trial.label}, {split.value} rows"
            self.stage(trial.label)
            self.clone.run(trial.name, overrides, message, lambda stage: self.stage(f"{trial.label}: {stage}"), lock)
        return self.clone.figures(trial.name)

    def already_running(self) -> None:
        """There is another process at this search."""
        raise InputError(f"search {self.name} is running already")

    def wait(self) -> None:
        """A killed search has left its trial behind."""
        self.say("the trial of the killed search still runs; waiting for it")
