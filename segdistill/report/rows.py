"""What the report's tables say, as plain text cells; `text.py` and `html.py` only lay them out."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from segdistill.streams import ENSEMBLE
from segdistill.study.results import REFERENCES, Against, Comparison, RungResult
from segdistill.study.rungs import BASELINE, SELF_DISTILL
from segdistill.study.statistics import CONFIDENCE, PairedDifference, Spread, points

UNKNOWN = "-"
_INTERVAL = f"{CONFIDENCE:.0%} interval"

_OF_UNEVEN = "Rungs have different seeds: means are over a rung's own, differences over those that it shares."
SCORE_NOTE = (
    "Default score: the last epoch's weights, or their running average. The best epoch is beside it and flatters: "
    "it was chosen on the very split it is scored on."
)


@dataclass(frozen=True)
class Column:
    heading: str  # a line break where it may be broken
    group: str = ""  # neighbours of one group share this as a heading above theirs


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        title: what the numbers are, with their unit.
        note: what has to be known to read them.
        columns: the first `naming` ones name the rows.
        rows: one cell for each column.
        strong: names of the rows to set off.
        naming: stays beside the others wherever a table is cut.
    """

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[str, ...] = ()
    naming: int = 1


def verdict(comparison: Comparison) -> tuple[str, list[str]]:
    """The sentence to read first, and the others. First is self-distillation, against plain training if both are
    there."""
    first = [
        against.miou.in_words(SELF_DISTILL, reference)
        for result in comparison.results
        if result.rung.name == SELF_DISTILL
        for reference, against in result.against.items()
    ]
    sentences = [*first, *(sentence for sentence in comparison.words if sentence not in first)]
    if not sentences:
        return _why_no_difference(comparison), []
    return sentences[0], sentences[1:]


def _why_no_difference(comparison: Comparison) -> str:
    """Why there is no difference to report, and what to do about it."""
    names = {result.rung.name for result in comparison.results} | {rung for rung, _ in comparison.missing}
    known = [name for name in REFERENCES if name in names]
    if not known:
        return (
            f"There is no difference to report, as none of these rungs is one to measure against: add {BASELINE} "
            "to --kinds."
        )
    if not comparison.same_data:
        return "There is no difference to report, as no two runs of the same seed had the same data."
    if len(names) == 1:
        return f"There is no difference to report, as there is no rung but {known[0]}: add others by --kinds or --rung."
    return (
        f"There is no difference to report yet, as no rung shares a finished seed with {' or '.join(known)}: train the "
        "missing runs."
    )


def missing_lines(comparison: Comparison) -> list[str]:
    """Which runs are not finished, by rung, and how each of them failed that did; none if all are."""
    seeds: dict[str, list[int]] = {}
    for rung, seed in comparison.missing:
        seeds.setdefault(rung, []).append(seed)
    if not seeds:
        return []
    missing = "; ".join(f"{rung} {_seeds(found)}" for rung, found in seeds.items())
    return [f"Missing runs: {missing}.", *(f"Failed: {failure}" for failure in comparison.failures)]


def references(comparison: Comparison) -> list[str]:
    """The references that some rung of the study is measured against."""
    return [name for name in REFERENCES if any(name in result.against for result in comparison.results)]


def class_names(comparison: Comparison) -> list[str]:
    """The classes in the order of the taxonomy."""
    return list(dict.fromkeys(name for result in comparison.results for name in result.runs[0].iou))


def measured_against_baseline(comparison: Comparison) -> list[tuple[RungResult, Against]]:
    return [(result, result.against[BASELINE]) for result in comparison.results if BASELINE in result.against]


def main_grid(comparison: Comparison) -> Grid:
    """One row for each rung: scores, paired differences, cost."""
    against = references(comparison)
    columns = [
        Column("rung"),
        Column("seeds"),
        Column("mIoU ± sd"),
        Column("best,\nflatters"),
        *(Column(heading, f"minus {name}") for name in against for heading in ("mean", _INTERVAL, "won")),
        *(Column(heading, f"× {BASELINE}") for heading in ("time", "memory") if BASELINE in against),
    ]
    uneven = _uneven(comparison)
    rows = [_main_row(result, against, name_seeds=uneven) for result in comparison.results]
    note = _main_note(against, uneven=uneven) + _shared_note(comparison)
    return Grid("mIoU in percent", note, tuple(columns), tuple(rows), strong=(SELF_DISTILL,))


def _main_row(result: RungResult, against: Sequence[str], *, name_seeds: bool) -> tuple[str, ...]:
    """A rung's cells, one for each column of `main_grid`."""
    seeds = ", ".join(str(run.seed) for run in result.runs)
    return (
        result.rung.name,
        f"{result.miou.n} ({seeds})" if name_seeds else str(result.miou.n),
        _spread(result.miou),
        _percent(result.best_miou.mean),
        *(cell for name in against for cell in _difference(_miou_of(result.against.get(name)))),
        *(_cost(result.against.get(BASELINE)) if BASELINE in against else ()),
    )


def _main_note(against: Sequence[str], *, uneven: bool) -> str:
    """What the columns of `main_grid` mean.

    Args:
        against: rungs that others are measured against.
        uneven: whether rungs have different seeds.
    """
    note = (
        "±: sample standard deviation over seeds. best: of the best epoch, which was chosen on the very split it is "
        "scored on and so flatters."
    )
    if against:
        note += (
            " minus: mean of the differences seed by seed, in percentage points, with its interval; won: seeds in "
            "which the rung was better."
        )
    if against and uneven:
        note += f" {_OF_UNEVEN}"
    if BASELINE in against:
        note += (
            " time, memory: seconds per training step (measured when all trainings have ended) and peak memory of "
            "training and scoring (on a GPU of tensors, on a CPU of the whole process with its libraries), as "
            f"multiples of the {BASELINE}'s."
        )
    return note


def _shared_note(comparison: Comparison) -> str:
    """Which rungs did epochs for others; empty if none did."""
    shared = [epochs for one in comparison.results if (epochs := _shared_epochs(one))]
    if not shared:
        return ""
    sources = sorted({run.shared_with for one in comparison.results for run in one.runs} - {""})
    return (
        f" Epochs that another rung of the same seed did, equal until there: {', '.join(shared)} "
        f"(by {', '.join(sources)})."
    )


def _uneven(comparison: Comparison) -> bool:
    return len({tuple(run.seed for run in result.runs) for result in comparison.results}) > 1


def _shared_epochs(result: RungResult) -> str:
    """How many epochs another rung did for this one, and for how many of its seeds if not for all; or nothing."""
    epochs = [run.shared_epochs for run in result.runs]
    some = f" in {sum(map(bool, epochs))} of {len(epochs)} seeds" if not all(epochs) else ""
    return f"{result.rung.name} {max(epochs)}{some}" if any(epochs) else ""


def class_grid(comparison: Comparison) -> Grid | None:
    """IoU differences to the baseline, a row for each class; None if nothing is measured against it."""
    measured = measured_against_baseline(comparison)
    if not measured:
        return None
    [baseline] = (result for result in comparison.results if result.rung.name == BASELINE)
    columns = (
        Column("class"),
        Column(f"{BASELINE}\nIoU"),
        *(Column(result.rung.name) for result, _ in measured),
    )
    rows = [
        (
            name,
            _mean_percent(run.iou.get(name) for run in baseline.runs),
            *(_mean_points(against.classes.get(name)) for _, against in measured),
        )
        for name in class_names(comparison)
    ]
    overall = (
        "mIoU",
        _percent(baseline.miou.mean),
        *(_mean_points(against.miou) for _, against in measured),
    )
    return Grid(
        f"IoU by class: of {BASELINE} in percent, and the differences to it in percentage points",
        f"Means over the seeds with a score. {UNKNOWN}: none, for the class is not in the labels and not "
        f"predicted by both.{f' {_OF_UNEVEN}' if _uneven(comparison) else ''}",
        columns,
        (*rows, overall),
        strong=("mIoU",),
    )


def submodel_grid(comparison: Comparison) -> Grid | None:
    """mIoU of branches and ensemble, a row for each of them in each rung; None if no rung has any."""
    with_branches = [result for result in comparison.results if any(run.submodels for run in result.runs)]
    if not with_branches:
        return None
    measured = BASELINE in references(comparison)
    rows = []
    for result in with_branches:
        against = result.against.get(BASELINE)
        found = dict.fromkeys(name for run in result.runs for name in run.submodels)
        for name in sorted(found, key=lambda name: name == ENSEMBLE):  # stable, and the ensemble last
            miou = Spread.of([run.submodels[name] for run in result.runs if name in run.submodels])
            difference = against.submodels.get(name) if against else None
            rows.append(
                (result.rung.name, name, _spread(miou), *(_difference(difference) if measured else ()))
            )
    columns = (
        Column("rung"),
        Column("sub-model"),
        Column("mIoU ± sd"),
        *(Column(heading, f"minus {BASELINE}") for heading in ("mean", _INTERVAL, "won") if measured),
    )
    return Grid(
        "mIoU of the sub-models in percent",
        "A branch is a network, too, often one of fewer multiply-adds than the primary: tools/export.py RUN --stream "
        "all exports each and lists its cost. The best of several sub-models flatters if it is chosen on the images it "
        "is scored on. An ensemble that is not better than the primary has nothing to teach it.",
        columns,
        tuple(rows),
        naming=2,
    )


def protocol_items(comparison: Comparison) -> list[tuple[str, str]]:
    """How the scores came about, as (what, value)."""
    seeds = sorted({run.seed for result in comparison.results for run in result.runs})
    return [
        *((key.replace("_", " "), _plain(value)) for key, value in comparison.protocol.items()),
        ("seeds", ", ".join(map(str, seeds)) or UNKNOWN),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _mean_percent(shares: Iterable[float | None]) -> str:
    """The mean of those shares that exist, in percent."""
    known = [share for share in shares if share is not None]
    return _percent(statistics.fmean(known)) if known else UNKNOWN


def _spread(spread: Spread) -> str:
    return _percent(spread.mean) if spread.sd is None else f"{_percent(spread.mean)} ± {_percent(spread.sd)}"


def _miou_of(against: Against | None) -> PairedDifference | None:
    return against.miou if against else None


def _difference(paired: PairedDifference | None) -> tuple[str, str, str]:
    if paired is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    low, high = paired.low, paired.high
    interval = UNKNOWN if low is None or high is None else f"{points(low)} to {points(high)}"
    return points(paired.spread.mean), interval, f"{paired.won}/{paired.spread.n}"


def _cost(against: Against | None) -> tuple[str, str]:
    return (UNKNOWN, UNKNOWN) if against is None else (_ratio(against.seconds), _ratio(against.memory))


def _ratio(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _mean_points(difference: PairedDifference | None) -> str:
    return UNKNOWN if difference is None else points(difference.spread.mean)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _plain(value: Any) -> str:
    match value:
        case None | False:
            return "no"
        case True:
            return "yes"
        case list() | tuple():
            return "x".join(map(_plain, value))
        case _:
            return str(value)
