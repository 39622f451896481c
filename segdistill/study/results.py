"""What the finished runs of a study say, in pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segdistill.study.run_results import ABOUT_DATA, RunResult, distinct_values
from segdistill.study.rungs import BASELINE, DEEP_SUPERVISION, Rung
from segdistill.study.statistics import CONFIDENCE, PairedDifference, Spread

#: What every other rung is measured against, if it is part of the study.
REFERENCES = (BASELINE, DEEP_SUPERVISION)
#: How overrides begin that choose the weights before the first step.
_OF_FIRST_WEIGHTS = ("model.weights=", "model.encoder_weights=", "model=")


@dataclass(frozen=True)
class Against:
    """The differences between a rung and a reference."""

    miou: PairedDifference
    classes: dict[str, PairedDifference]  # of the IoU; seeds in which the class has a score in both
    #: Classes that have a score in one of two paired runs alone, in whose mIoU they count.
    unpaired: tuple[str, ...]
    submodels: dict[
        str, PairedDifference
    ]  # of the mIoU; the rung's branches and ensemble minus the reference's primary
    seconds: float | None  # per training step, as a ratio
    memory: float | None  # peak while training, the highest of the shared seeds, as a ratio


@dataclass(frozen=True)
class RungResult:
    rung: Rung
    runs: tuple[RunResult, ...]  # by seed; at least one
    miou: Spread
    best_miou: Spread
    against: dict[str, Against]  # by reference


@dataclass(frozen=True)
class Comparison:
    """All that the report shows.

    Attributes:
        name: of the study's configuration.
        protocols: how the score of each finished run came about, as `read_protocol` has it.
        results: of the rungs with a finished run, in the order of the ladder.
        missing: (rung, seed) of the runs that are not finished.
        failures: of the missing ones, what those said that ended with an error.
    """

    name: str
    protocols: tuple[Mapping[str, Any], ...]
    results: tuple[RungResult, ...]
    missing: tuple[tuple[str, int], ...]
    failures: tuple[str, ...] = ()

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of all runs; where they differ (a rung may train for longer), all the values there are."""
        return {
            key: values[0] if len(values) == 1 else _differs(values)
            for key, values in distinct_values(self.protocols).items()
        }

    @property
    def caveats(self) -> list[str]:
        """What makes a difference something else than one between methods; empty as a rule."""
        return [*self._of_data(), *self._of_makers(), *self._of_classes(), *self._of_curves()]

    @property
    def same_data(self) -> bool:
        """Whether all runs had the same data."""
        return not self._of_data()

    def _of_data(self) -> list[str]:
        differing = [
            f"{what.replace('_', ' ')} {_differs(values)}"
            for what, values in distinct_values(self.protocols).items()
            if what in ABOUT_DATA and len(values) > 1
        ]
        if not differing:
            return []
        no_pairs = [
            f"{result.rung.name} and {reference.rung.name}, seed {run.seed}"
            for result in self.results
            for reference in self.results
            for run, other in _of_equal_seeds(result.runs, reference.runs)
            if reference.rung.name in REFERENCES
            and result.rung.name not in (reference.rung.name, BASELINE)
            and run.data_hash != other.data_hash
        ]
        left_out = f": {'; '.join(no_pairs)} are left out of the differences" if no_pairs else ""
        return [
            f"Not all of these runs had the same data ({'; '.join(differing)}), so some are no pairs{left_out}."
        ]

    def _of_makers(self) -> list[str]:
        """A caveat where the two sides of a pair were not trained alike."""
        runs = {result.rung.name: {run.seed: run for run in result.runs} for result in self.results}
        # A rung that chooses its weights is meant to begin with others.
        choosing = {
            result.rung.name
            for result in self.results
            if any(one.startswith(_OF_FIRST_WEIGHTS) for one in result.rung.overrides)
        }
        pairs = [
            (
                f"{result.rung.name} and {reference}, seed {seed}",
                runs[result.rung.name][seed],
                runs[reference][seed],
                not choosing & {result.rung.name, reference},
            )
            for result in self.results
            for reference, against in result.against.items()
            for seed in against.miou.by_seed
        ]
        differing = [
            (pair, found)
            for pair, one, other, same_start in pairs
            if (found := _made_otherwise(one, other, same_start=same_start))
        ]
        if not differing:
            return []
        (pair, example), *_ = differing
        return [
            f"In {len(differing)} of {len(pairs)} pairs the two runs were trained by different software, on different "
            f"devices or from files of different weights ({pair}: {example}), which may be a part of their difference."
        ]

    def _of_classes(self) -> list[str]:
        return [
            f"The mIoU of {result.rung.name} and of {reference} are means over different classes "
            f"({', '.join(against.unpaired)}: not in the labels, and predicted by one of the two alone, which counts "
            "as an IoU of 0)."
            for result in self.results
            for reference, against in result.against.items()
            if against.unpaired
        ]

    def _of_curves(self) -> list[str]:
        damaged = [
            f"{result.rung.name}, seed {run.seed}"
            for result in self.results
            for run in result.runs
            if not run.whole_curve
        ]
        return [
            f"The learning curve of {run} lacks epochs, since its metrics.jsonl is damaged or gone; its score is whole."
            for run in damaged
        ]

    @property
    def words(self) -> list[str]:
        """A sentence for each rung and reference, that of the last rung first."""
        return [
            against.miou.in_words(result.rung.name, reference)
            for result in reversed(self.results)
            for reference, against in result.against.items()
        ]

    @property
    def by_chance(self) -> str:
        """How far the intervals may be trusted taken together; empty if there is at most one of primaries. Branches and
        ensembles are other networks, and may differ from the baseline's primary although no method changes anything.
        """
        intervals = sum(
            against.miou.low is not None for result in self.results for against in result.against.values()
        )
        if intervals < 2:
            return ""
        return (
            f"These are {intervals} intervals of primaries. Where no method changes anything, in up to "
            f"{1 - CONFIDENCE**intervals:.0%} of such studies one of them would be found better or worse by chance: a "
            "single surprise asks for more seeds."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        del plain["protocols"]
        return (
            {"name": self.name, "protocol": self.protocol}
            | plain
            | {
                "caveats": self.caveats,
                "words": self.words,
                "by_chance": self.by_chance,
            }
        )


def _differs(values: Iterable[Any]) -> str:
    return f"differs: {' / '.join(map(str, values))}"


def _made_otherwise(run: RunResult, reference: RunResult, *, same_start: bool) -> str:
    """What of device, software and, where both should begin alike, first weights differs; empty if nothing does."""
    ours, theirs = (
        (
            one.device,
            *one.software,
            *([f"weights {one.first_weights[:8]}"] if same_start and one.first_weights else []),
        )
        for one in (run, reference)
    )
    sides = [one for one in ours if one not in theirs], [one for one in theirs if one not in ours]
    return " / ".join(", ".join(side) or "not there" for side in sides) if any(sides) else ""


def compare_rungs(
    runs: Sequence[tuple[Rung, Sequence[RunResult]]], *, seconds_per_step: Mapping[str, float]
) -> tuple[RungResult, ...]:
    """Pair the runs by seed.

    Args:
        runs: each rung with its finished runs, one of a seed; rungs without any are left out.
        seconds_per_step: by rung, measured in turns; may lack rungs.
    """
    finished = {rung.name: {run.seed: run for run in results} for rung, results in runs if results}
    assert all(len(finished.get(rung.name, ())) == len(results) for rung, results in runs)

    def against(rung: Rung) -> dict[str, Against]:
        pairs = {
            reference: [
                pair
                for pair in _of_equal_seeds(finished[rung.name].values(), finished[reference].values())
                if pair[0].data_hash == pair[1].data_hash
            ]
            for reference in REFERENCES
            if reference in finished and rung.name not in (reference, BASELINE)
        }
        return {
            reference: _against(
                found, seconds=_ratio(seconds_per_step.get(rung.name), seconds_per_step.get(reference))
            )
            for reference, found in pairs.items()
            if found
        }

    return tuple(
        RungResult(
            rung=rung,
            runs=tuple(sorted(results, key=lambda run: run.seed)),
            miou=Spread.of([run.miou for run in results]),
            best_miou=Spread.of([run.best_miou for run in results]),
            against=against(rung),
        )
        for rung, results in runs
        if results
    )


def _of_equal_seeds(
    runs: Iterable[RunResult], others: Iterable[RunResult]
) -> list[tuple[RunResult, RunResult]]:
    """Pairs of runs with equal seeds, by seed."""
    known = {other.seed: other for other in others}
    return [(run, known[run.seed]) for run in sorted(runs, key=lambda run: run.seed) if run.seed in known]


def _against(pairs: Sequence[tuple[RunResult, RunResult]], *, seconds: float | None) -> Against:
    """The differences within `pairs` of a run and its reference, which are ordered by seed; at least one pair."""
    runs, reference = ({run.seed: run for run in side} for side in zip(*pairs, strict=True))
    seeds = list(runs)
    classes: dict[str, PairedDifference] = {}
    unpaired: list[str] = []
    for name in runs[seeds[0]].iou:
        ious = {seed: (runs[seed].iou.get(name), reference[seed].iou.get(name)) for seed in seeds}
        known = {seed: a - b for seed, (a, b) in ious.items() if a is not None and b is not None}
        if known:
            classes[name] = PairedDifference.of(known)
        if any((a is None) != (b is None) for a, b in ious.values()):
            unpaired.append(name)
    submodels: dict[str, dict[int, float]] = {}
    for seed in seeds:
        for name, miou in runs[seed].submodels.items():
            submodels.setdefault(name, {})[seed] = miou - reference[seed].miou
    return Against(
        miou=PairedDifference.of({seed: runs[seed].miou - reference[seed].miou for seed in seeds}),
        classes=classes,
        unpaired=tuple(unpaired),
        submodels={name: PairedDifference.of(by_seed) for name, by_seed in submodels.items()},
        seconds=seconds,
        memory=_ratio(*(_most_memory(side[seed] for seed in seeds) for side in (runs, reference))),
    )


def _most_memory(runs: Iterable[RunResult]) -> float | None:
    return max((run.memory_bytes for run in runs if run.memory_bytes), default=None)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value / reference
