"""Optuna's part: which recipe is tried next. Its journal remembers what was proposed, so an interrupted search goes on."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as Proposal

from tools.search.figures import Limit
from tools.search.schema import Sampler, Search
from tools.search.space import Values
from tools.search.verdict import Trial


class Grid(GridSampler):
    """Optuna's, which would stop `study.optimize` after the last point; here `proposals` counts, and nothing is to stop."""

    def after_trial(self, *_: Any) -> None:
        """Nothing."""


class Proposals:
    """The trials of one search at one commit, in order."""

    def __init__(self, search: Search, commit: str, journal: Path) -> None:
        """Opens the study, or makes it. Another space, goal or commit is another study; more trials go on with this one."""
        self.search = search
        self.space = search.dimensions()
        if search.sampler is Sampler.grid:
            self.space = {key: Values(dimension.texts()) for key, dimension in self.space.items()}
        journal.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{journal}.lock").unlink(missing_ok=True)  # of a killed search; Optuna would wait half a minute
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=f"{commit[:12]} {identity(search)}",
            direction="minimize" if search.minimize else "maximize",
            load_if_exists=True,
        )

    @property
    def wanted(self) -> int:
        """How many trials there are to be, beside the default recipe."""
        points = int(np.prod([len(dimension.texts()) for dimension in self.space.values()]))
        wanted = self.search.n_trials or points
        return min(wanted, points) if self.search.sampler is Sampler.grid else wanted

    @property
    def told(self) -> list[FrozenTrial]:
        """The trials that have ended, well or not."""
        return self.study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))

    def next(self) -> Proposal | None:
        """The trial that was running when the search was interrupted, or a new one, or None where there were enough."""
        number = len(self.told)
        if number >= self.wanted:
            return None
        self.study.sampler = self.sampler(number)
        running = self.study.get_trials(states=(TrialState.RUNNING,))
        proposal = Proposal(self.study, running[0]._trial_id) if running else self.study.ask()
        for key, dimension in self.space.items():
            dimension.suggest(proposal, key)  # what was suggested before the interruption is given again
        return proposal

    def tell(self, proposal: Proposal, trial: Trial, limits: list[Limit]) -> None:
        """Records what became of a trial."""
        proposal.set_user_attr("name", trial.name)
        if not trial.figures:
            proposal.set_user_attr("reason", trial.reason)
            self.study.tell(proposal, state=TrialState.FAIL)
            return
        proposal.set_user_attr("figures", trial.figures)
        for limit in limits:
            proposal.set_constraint(str(limit), limit.excess(trial.figures))
        self.study.tell(proposal, trial.figures[self.search.goal])

    def trials(self) -> list[Trial]:
        """The trials that have ended."""
        return [
            Trial(told.user_attrs["name"], told.params, told.user_attrs.get("figures", {}), told.user_attrs.get("reason", ""))
            for told in self.told
        ]

    def sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial. Its seed depends on the number, so it draws the same after an interruption."""
        if self.search.sampler is Sampler.grid:
            return Grid({key: dimension.texts() for key, dimension in self.space.items()}, seed=self.search.seed)
        seed = int(np.random.SeedSequence([self.search.seed, number]).generate_state(1)[0])
        return RandomSampler(seed=seed) if self.search.sampler is Sampler.random else TPESampler(seed=seed)


def identity(search: Search) -> str:
    """A hash of what makes a search this one: all but how many trials it may take."""
    content = asdict(search) | {"n_trials": None, "sampler": search.sampler.value}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
