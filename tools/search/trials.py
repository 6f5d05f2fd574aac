"""The trials of a search: Optuna proposes them, with a journal so that an interrupted search resumes, and DVC runs them."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as Proposal

from tools.search.clone import Clone
from tools.search.metrics import Limit, Metrics, axes, limits, resolution, value_of
from tools.search.schema import SPLIT, Sampler, Search
from tools.search.space import Values, overrides_of
from tools.search.verdict import Trial, Verdict, judge
from tunepress.config.evaluate import Split
from tunepress.core.errors import InputError
from tunepress.core.files import remove
from tunepress.core.lock import file_lock
from tunepress.inference.metrics import differences


class Grid(GridSampler):
    """Optuna's sampler, which stops `study.optimize` after the last point; `Proposals` counts them itself."""

    def after_trial(self, *_: Any) -> None:
        pass


class Proposals:
    """The proposals of one search at one commit, in order."""

    def __init__(self, search: Search, commit: str, journal: Path) -> None:
        """Opens or creates the study. Another space, goal or commit has another study; more trials continue the same one."""
        self.search = search
        self.space = search.dimensions()
        if search.sampler is Sampler.grid:
            self.space = {key: Values(dimension.texts()) for key, dimension in self.space.items()}
        journal.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{journal}.lock").unlink(missing_ok=True)  # left by a killed search; Optuna would wait for it for half a minute
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=f"{commit[:12]} {identity(search)}",
            direction="minimize" if search.minimize else "maximize",
            load_if_exists=True,
        )

    @property
    def total(self) -> int:
        """The number of trials, besides the default recipe."""
        points = int(np.prod([len(dimension.texts()) for dimension in self.space.values()]))
        total = self.search.n_trials or points
        return min(total, points) if self.search.sampler is Sampler.grid else total

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that have finished or failed."""
        return self.study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))

    def next(self) -> Proposal | None:
        """The trial that was running when the search was interrupted, or a new one, or None after the last one."""
        number = len(self.finished)
        if number >= self.total:
            return None
        self.study.sampler = self.sampler(number)
        running = self.study.get_trials(states=(TrialState.RUNNING,))
        proposal = Proposal(self.study, running[0]._trial_id) if running else self.study.ask()
        for key, dimension in self.space.items():
            dimension.suggest(proposal, key)  # returns the same values as before an interruption
        return proposal

    def tell(self, proposal: Proposal, trial: Trial, limits: list[Limit]) -> None:
        """Records the result of a trial."""
        proposal.set_user_attr("name", trial.name)
        if not trial.metrics:
            proposal.set_user_attr("reason", trial.reason)
            self.study.tell(proposal, state=TrialState.FAIL)
            return
        proposal.set_user_attr("metrics", trial.metrics)
        for limit in limits:
            proposal.set_constraint(str(limit), limit.excess(trial.metrics))
        self.study.tell(proposal, trial.metrics[self.search.goal])

    def trials(self) -> list[Trial]:
        return [
            Trial(trial.user_attrs["name"], trial.params, trial.user_attrs.get("metrics", {}), trial.user_attrs.get("reason", ""))
            for trial in self.finished
        ]

    def sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial. Its seed depends on the number, so that it draws the same after an interruption."""
        if self.search.sampler is Sampler.grid:
            return Grid({key: dimension.texts() for key, dimension in self.space.items()}, seed=self.search.seed)
        seed = int(np.random.SeedSequence([self.search.seed, number]).generate_state(1)[0])
        return RandomSampler(seed=seed) if self.search.sampler is Sampler.random else TPESampler(seed=seed)


def identity(search: Search) -> str:
    """A hash of all settings of a search except the number of trials."""
    content = asdict(search) | {"n_trials": None, "sampler": search.sampler.value}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


Log = Callable[[str], None]


class Trials:
    """Runs the trials of one search."""

    def __init__(self, name: str, search: Search, folder: Path, log: Log, show_status: Log) -> None:
        """`log` receives what has happened, `show_status` what is running."""
        self.search, self.folder, self.log, self.show_status, self.name = search, folder, log, show_status, name
        self.failed: dict[str, Trial] = {}

    def run(self) -> Verdict:
        """Runs the remaining trials and compares all on the validation rows, then measures the winner on the test rows.

        Raises:
            InputError: the default recipe fails, or lacks a metric that the search uses.
        """
        with file_lock(self.folder / "lock", self.raise_running):
            with file_lock(self.folder / "trial.lock", self.log_waiting):
                self.clone = Clone(self.name, self.folder / "clone", self.search.measured_here)
            default = self.default()
            if self.search.against:
                value_of(self.search.against, default.metrics)  # missing, it would be missed after the last trial
            if message := resolution(default.metrics):
                self.log(message)
            bounds = limits(self.search.constraints, default.metrics)
            proposals = Proposals(self.search, self.clone.commit, self.folder / "study.log")
            self.failed = {trial.name: trial for trial in proposals.trials() if trial.reason}
            while proposal := proposals.next():
                count = f"{len(proposals.finished) + 1} of {proposals.total}: "
                proposals.tell(proposal, self.attempt(proposal.params, count), bounds)
            verdict = judge(self.search, [default, *proposals.trials()])
            finalists = {trial.name: trial for trial in (verdict.winner, default) if verdict.winner and trial}
            verdict = replace(
                verdict,
                p_values=self.p_values(verdict),
                tested=[self.attempt(trial.choices, split=Split.test) for trial in finalists.values()],
            )
            remove(self.clone.folder)
            return verdict

    def p_values(self, verdict: Verdict) -> dict[str, float]:
        """By the name of a recipe, whether its answers differ from the default's on the validation rows by more than chance."""
        default, *others = [trial.name for trial in verdict.finished]
        compared = zip(others, differences(self.clone.answers(default), list(map(self.clone.answers, others))), strict=True)
        return {name: p_value for name, p_value in compared if p_value is not None}

    def default(self) -> Trial:
        """Runs the recipe of conf/, with which the others are compared."""
        trial = self.attempt({})
        if not trial.metrics:
            raise InputError(f"the default recipe failed, and the others are compared with it: {trial.reason}")
        return trial

    def attempt(self, choices: dict[str, Any], count: str = "", split: Split = Split.validation) -> Trial:
        """Runs a recipe, unless it already has an experiment or has failed.

        On other rows it is another experiment, of which DVC only runs the evaluation.
        """
        overrides = [*self.search.overrides, f"{SPLIT}={split.value}", *overrides_of(choices)]
        trial, start = Trial(self.clone.name_of(overrides), choices), time.monotonic()
        text = f"{count}{trial.name} ({trial.label}, {split.value} rows)"
        if trial.name in self.failed:
            return self.failed[trial.name]
        try:
            known = self.clone.metrics(trial.name)
            trial = replace(trial, metrics=known or self.measure(trial, overrides, split))
            metrics = ", ".join(f"{metric} {value_of(metric, trial.metrics):.5g}" for metric in axes(self.search))
        except InputError as error:
            self.failed[trial.name] = replace(trial, metrics={}, reason=str(error))
            self.log(f"{text} failed: {error}")
            return self.failed[trial.name]
        self.log(f"{text}: {metrics}, {'known' if known else f'{time.monotonic() - start:.0f} s'}")
        return trial

    def measure(self, trial: Trial, overrides: list[str], split: Split) -> Metrics:
        """Runs a recipe and reads its metrics."""
        with file_lock(self.folder / "trial.lock", self.log_waiting) as lock:
            message = f"search {self.name}: {trial.label}, {split.value} rows"
            self.show_status(trial.label)
            self.clone.run(trial.name, overrides, message, lambda stage: self.show_status(f"{trial.label}: {stage}"), lock)
        return self.clone.metrics(trial.name)

    def raise_running(self) -> None:
        raise InputError(f"search {self.name} is already running")

    def log_waiting(self) -> None:
        self.log("the trial of a killed search is still running; waiting for it")
