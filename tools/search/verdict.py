"""Which recipe wins, and which are on the Pareto front."""

from dataclasses import dataclass, field, replace
from typing import Any

from tools.search.metrics import Limit, Metrics, axes, limits, value_of
from tools.search.schema import Search


@dataclass(frozen=True)
class Trial:
    """The result of a recipe: the metrics of its experiment, or the reason why there are none."""

    name: str
    choices: dict[str, Any]  # empty for the default recipe
    metrics: Metrics = field(default_factory=dict)
    reason: str = ""

    @property
    def label(self) -> str:
        """The choices as text."""
        return ", ".join(f"{key}={display(value)}" for key, value in self.choices.items()) or "the default recipe"


def display(value: Any) -> str:
    """A choice as text, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Verdict:
    """The result of a search on the validation rows. `trials` has each recipe once, the default first.

    `tested` has the winner and the default recipe with their metrics on the test rows, which do not affect the choice. `p_values`
    are of the differences between a recipe's answers and the default's, by McNemar's exact test with Holm's correction.
    """

    search: Search
    trials: list[Trial]
    limits: list[Limit]
    front: list[Trial]
    winner: Trial | None
    tested: list[Trial] = field(default_factory=list)
    p_values: dict[str, float] = field(default_factory=dict)

    def broken(self, trial: Trial) -> list[Limit]:
        """The limits that a trial exceeds."""
        return [limit for limit in self.limits if trial.metrics and limit.excess(trial.metrics) > 0]

    @property
    def finished(self) -> list[Trial]:
        """The trials with metrics."""
        return [trial for trial in self.trials if trial.metrics]

    @property
    def feasible(self) -> list[Trial]:
        """The finished trials within all limits."""
        return [trial for trial in self.finished if not self.broken(trial)]


def judge(search: Search, trials: list[Trial]) -> Verdict:
    """Compares the trials of a search.

    Args:
        search: with the goal and the constraints.
        trials: the default first, which must be finished; a recipe that was proposed several times counts once.
    """
    by_name: dict[str, Trial] = {}
    for trial in trials:
        by_name.setdefault(trial.name, trial)
    verdict = Verdict(search, list(by_name.values()), limits(search.constraints, trials[0].metrics), [], None)
    signs = axes(search)

    def cost(trial: Trial) -> list[float]:
        return [sign * value_of(metric, trial.metrics) for metric, sign in signs.items()]

    front = [trial for trial in verdict.finished if not any(dominates(cost(other), cost(trial)) for other in verdict.finished)]
    winner = min(
        verdict.feasible, key=cost, default=None
    )  # on a tie, the one with the better constrained metrics, then the first
    return replace(verdict, front=front, winner=winner)


def dominates(first: list[float], second: list[float]) -> bool:
    """Whether `first` is nowhere worse and somewhere better than `second`; less is better."""
    return first != second and all(left <= right for left, right in zip(first, second, strict=True))
