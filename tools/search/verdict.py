"""Which recipe wins, which ones nobody beats in everything (the Pareto front), and why."""

from dataclasses import dataclass, field, replace
from typing import Any

from tools.search.figures import Figures, Limit, axes, figure, interval, limits
from tools.search.schema import Search


@dataclass(frozen=True)
class Trial:
    """What became of one recipe: its experiment has figures, or there are none and a reason for that."""

    name: str
    choices: dict[str, Any]  # empty for the default recipe
    figures: Figures = field(default_factory=dict)
    reason: str = ""

    @property
    def label(self) -> str:
        """The choices in words."""
        return ", ".join(f"{key}={shown(value)}" for key, value in self.choices.items()) or "the default recipe"


def shown(value: Any) -> str:
    """A choice in a table: floats in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Verdict:
    """The trials of a search, judged by validation rows. `trials` has each recipe once, the default first.

    `tested` has the winner and the default recipe with their figures on the test rows, which had no say in the choice.
    """

    search: Search
    trials: list[Trial]
    limits: list[Limit]
    front: list[Trial]
    winner: Trial | None
    tested: list[Trial] = field(default_factory=list)

    def broken(self, trial: Trial) -> list[Limit]:
        """The limits that a trial does not keep."""
        return [limit for limit in self.limits if trial.figures and limit.excess(trial.figures) > 0]

    @property
    def finished(self) -> list[Trial]:
        """The trials that have figures."""
        return [trial for trial in self.trials if trial.figures]

    @property
    def kept(self) -> list[Trial]:
        """The finished trials that keep all limits."""
        return [trial for trial in self.finished if not self.broken(trial)]


def judge(search: Search, trials: list[Trial]) -> Verdict:
    """Judges the trials of a search.

    Args:
        search: the goal and the constraints.
        trials: the default first, which is finished; a recipe that was proposed several times counts once.
    """
    once: dict[str, Trial] = {}
    for trial in trials:
        once.setdefault(trial.name, trial)
    verdict = Verdict(search, list(once.values()), limits(search.constraints, trials[0].figures), [], None)
    signs = axes(search)

    def cost(trial: Trial) -> list[float]:
        return [sign * figure(metric, trial.figures) for metric, sign in signs.items()]

    front = [trial for trial in verdict.finished if not any(dominates(cost(other), cost(trial)) for other in verdict.finished)]
    winner = min(verdict.kept, key=cost, default=None)  # of equals the one with the better constrained figures, then the first
    return replace(verdict, front=front, winner=winner)


def dominates(one: list[float], other: list[float]) -> bool:
    """Whether `one` is nowhere worse and somewhere better, where less is better."""
    return one != other and all(left <= right for left, right in zip(one, other, strict=True))


def sentence(verdict: Verdict) -> str:
    """The winner and the reason, or that there is none and which trial came closest."""
    held = " and ".join(map(str, verdict.limits))
    best = "lowest" if verdict.search.sign > 0 else "highest"
    if verdict.winner is None:
        near = min(verdict.finished, key=lambda trial: overshoot(verdict, trial))
        missed = "; ".join(f"{limit.metric} {figure(limit.metric, near.figures):.5g}" for limit in verdict.broken(near))
        return f"No recipe has {held}. Closest is {near.name} ({near.label}) with {missed}."
    goal = verdict.search.goal
    condition = f" of the {len(verdict.kept)} (of {len(verdict.finished)} that finished) with {held}" if held else ""
    reached = figure(goal, verdict.winner.figures)
    said = f"{verdict.winner.name} ({verdict.winner.label}) wins: its {goal}, {reached:.5g}, is the {best}{condition}"
    if verdict.winner is verdict.trials[0]:
        return f"{said}."
    return f"{said}; the default recipe has {figure(goal, verdict.trials[0].figures):.5g}."


def tested_lines(verdict: Verdict) -> list[str]:
    """What the winner and the default recipe do on the test rows."""
    default = verdict.tested[-1].figures if verdict.tested else {}
    bounds = limits(verdict.search.constraints, default) if default else verdict.limits
    lines = []
    for trial in verdict.tested:
        named = f"{trial.name} ({trial.label})"
        if not trial.figures:
            lines.append(f"{named} failed: {trial.reason}")
            continue
        shown = ", ".join(f"{metric} {with_interval(metric, trial.figures)}" for metric in axes(verdict.search))
        broken = [limit.metric for limit in bounds if limit.excess(trial.figures) > 0]
        lines.append(f"{named}: {shown}{'; breaks ' + ', '.join(broken) if broken else ''}")
    return lines


def with_interval(metric: str, figures: Figures) -> str:
    """A figure, with the interval that it has."""
    bounds = interval(metric, figures)
    return f"{figure(metric, figures):.5g}{f' ({bounds[0]:.3f} to {bounds[1]:.3f})' if bounds else ''}"


def overshoot(verdict: Verdict, trial: Trial) -> float:
    """How far a trial is beyond all its limits, as shares of them."""
    broken = verdict.broken(trial)
    return sum(limit.excess(trial.figures) / (abs(limit.value) or 1) for limit in broken)
