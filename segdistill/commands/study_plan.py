"""What a comparison consists of: rungs, seeds, their folders, and what has to hold before anything is trained."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import settings_that_count
from segdistill.commands.shared_beginning import with_beginnings
from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError, RunFolderError
from segdistill.files import expanded
from segdistill.study.results import REFERENCES
from segdistill.study.rungs import ADDED, DEEP_SUPERVISION, LADDER, SELF_DISTILL, Rung
from segdistill.study.runner import PlannedRun

#: Keys that a comparison sets itself, with what there is instead of setting them.
_STUDYS_OWN = {
    "seed": "seeds are given by --seeds",
    "out": "the study's folder is given by --out",
    "export.weights": "the last epoch's weights are scored, and the best epoch is shown beside",
    "train.resume": "the same command goes on with what is not finished",
}
#: As `StudyFolder.run` writes it: `seed01` is somebody's copy.
_SEED_FOLDER = re.compile("seed(0|[1-9][0-9]*)")
_T = TypeVar("_T")
#: Keys that have to be the same in all rungs for pairs to be pairs.
_ONE_FOR_ALL = ("data.kind", "data.root", "data.size", "data.folder", "data.synthetic")


@dataclass(frozen=True)
class MeasuredCost:
    """Of each rung by name: seconds of a training step, and a hash of the settings that were timed."""

    seconds_per_step: dict[str, float]
    settings: dict[str, str]


@dataclass(frozen=True)
class StudyFolder:
    """`<rung>/seed<n>/` are run folders; beside them lie the results."""

    path: Path

    @property
    def json(self) -> Path:
        return self.path / "comparison.json"

    @property
    def page(self) -> Path:
        return self.path / "comparison.html"

    @property
    def cost(self) -> Path:
        return self.path / "seconds_per_step.json"

    @property
    def rungs(self) -> Path:
        """Names and overrides of all rungs that were ever trained here."""
        return self.path / "rungs.json"

    def measured_cost(self) -> MeasuredCost:
        """What earlier calls have measured; nothing if there were none."""
        return _read(self.cost, MeasuredCost, MeasuredCost({}, {}))

    def remembered(self, ladder: Sequence[Rung]) -> list[Rung]:
        """`ladder` and the rungs of earlier calls, those of the program's ladder first."""
        known = _read(self.rungs, dict[str, tuple[str, ...]], {})
        earlier = [Rung(name, overrides) for name, overrides in known.items()]
        every = {rung.name: rung for rung in (*earlier, *ladder)}
        order = [rung.name for rung in LADDER if rung.name in every]
        return [every[name] for name in (*order, *(name for name in every if name not in order))]

    def run(self, rung: Rung, seed: int) -> Path:
        return self.path / rung.name / f"seed{seed}"

    def finished_runs(self, rungs: Sequence[Rung]) -> list[tuple[Rung, int]]:
        """The rung and the seed of each run whose training came to its end."""
        return [
            (rung, seed)
            for rung in rungs
            for seed in sorted(
                int(path.name[4:])
                for path in (self.path / rung.name).glob("seed*/")
                if _SEED_FOLDER.fullmatch(path.name)
            )
            if RunFolder(self.run(rung, seed)).scored
        ]


@dataclass(frozen=True)
class Study:
    """Everything that one call of `segdistill compare` is about.

    Attributes:
        base: the study's configuration, before any rung changes it.
        folder: of runs and results.
        ladder: the rungs of this call.
        rungs: those and the rungs of earlier calls, in the order of the report.
        planned: the runs of this call, by seed and rung.
        known: those and what earlier calls have finished, other seeds and other rungs.
        left_out: what is not part of it, and why; a line for each reason.
    """

    base: Config
    folder: StudyFolder
    ladder: tuple[Rung, ...]
    rungs: tuple[Rung, ...]
    planned: tuple[PlannedRun, ...]
    known: tuple[PlannedRun, ...]
    left_out: tuple[str, ...]

    @property
    def todo(self) -> list[PlannedRun]:
        """Planned and not finished, or stopped on the way from the scores to the ONNX file."""
        return [run for run in self.planned if not is_finished(run) or is_cut_short(run)]

    @property
    def finished(self) -> list[PlannedRun]:
        return [run for run in self.known if is_finished(run)]


def plan_study(
    config_path: Path,
    overrides: Sequence[str],
    *,
    kinds: Sequence[str] | None,
    rungs: Sequence[Rung],
    seeds: Sequence[int],
    out: Path | None,
) -> Study:
    """All runs with their settings, checked against each other and against what their folders hold.

    Args:
        config_path: YAML file of the study; its own `method.kind` does not matter to the ladder.
        overrides: `key.sub=value` for every rung.
        kinds: names of the ladder's rungs; None for all whose terms have a weight.
        rungs: further ones.
        seeds: each rung is trained with each of them.
        out: folder of the study; by default `runs/<name>_compare`.

    Raises:
        ConfigError: naming the rung or option and the remedy.
    """
    base = load_config(config_path, overrides)
    own, off = chosen_of_ladder(base, kinds)
    ladder = [*own, *rungs]
    refuse_repeated("--rung", [rung.name for rung in ladder])
    refuse_repeated("--seeds", seeds)
    refuse_what_a_study_decides("the overrides", overrides)
    for rung in rungs:
        refuse_what_a_study_decides(f"rung {rung.name}", rung.overrides)
        refuse_unfair_pairs(rung)
    folder = StudyFolder(expanded(out or Path("runs") / f"{base.name}_compare"))
    if RunFolder(folder.path).config.is_file():
        raise RunFolderError(f"--out {folder.path} is the folder of a run; choose another for the comparison")
    plan_one = functools.partial(plan, config_path, overrides, folder=folder)
    plans = [plan_one(rung, seed) for seed in seeds for rung in ladder]
    twins = equal_rungs([(run.rung, config) for run, config in plans if run.seed == seeds[0]])
    refuse_twins(twins, asked_for=ladder if kinds is not None else rungs)
    ladder = [rung for rung in ladder if rung not in twins]
    planned = with_beginnings([one for one in plans if one[0].rung in ladder])
    every = folder.remembered(ladder)
    now = {(run.rung, run.seed) for run in planned}
    earlier, foreign = earlier_runs([one for one in folder.finished_runs(every) if one not in now], plan_one)
    nothing = [f"{rung.name} ({ADDED[rung.name]}=0)" for rung in off]
    nothing += [f"{rung.name} (equal to {twin.name})" for rung, twin in twins.items()]
    reasons = {"for it would add nothing": nothing, "trained with other settings than these": foreign}
    return Study(
        base=base,
        folder=folder,
        ladder=tuple(ladder),
        rungs=tuple(every),
        planned=tuple(planned),
        known=(*planned, *earlier),
        left_out=tuple(f"{why}: {', '.join(what)}" for why, what in reasons.items() if what),
    )


def chosen_of_ladder(base: Config, kinds: Sequence[str] | None) -> tuple[list[Rung], list[Rung]]:
    """The ladder's rungs that are compared, and those that are left out because they would add nothing."""
    if kinds is not None:
        return [rung for rung in LADDER if rung.name in kinds], []
    off = [rung for rung in LADDER if silent(rung, base)]
    return [rung for rung in LADDER if rung not in off], off


def refuse_repeated(option: str, values: Sequence[str | int]) -> None:
    """Raises ConfigError naming what is given twice."""
    if twice := sorted({str(value) for value in values if list(values).count(value) > 1}):
        raise ConfigError(f"{option}: {', '.join(twice)} is given twice")


def refuse_twins(twins: Mapping[Rung, Rung], *, asked_for: Sequence[Rung]) -> None:
    """Raises ConfigError for a rung that was asked for by name and trains the same as another."""
    for rung, twin in twins.items():
        if rung in asked_for:
            raise ConfigError(
                f"rung {rung.name}: it trains with the very settings of {twin.name}; leave one of them out"
            )


def earlier_runs(
    finished: Sequence[tuple[Rung, int]], plan_one: Callable[[Rung, int], tuple[PlannedRun, Config]]
) -> tuple[list[PlannedRun], list[str]]:
    """The runs that earlier calls have finished with this call's settings, and the names of those with others."""
    same: list[PlannedRun] = []
    foreign: list[str] = []
    for rung, seed in finished:
        try:
            same.append(plan_one(rung, seed)[0])
        except ConfigError:
            foreign.append(f"{rung.name} seed {seed}")
    return same, foreign


def equal_rungs(rungs: Sequence[tuple[Rung, Config]]) -> dict[Rung, Rung]:
    """Rung -> another one that trains the same; of several, the one that the report is about stays."""
    by_interest = sorted(rungs, key=lambda one: one[0].name not in (*REFERENCES, SELF_DISTILL))
    first: dict[str, Rung] = {}
    twins: dict[Rung, Rung] = {}
    for rung, config in by_interest:
        method = config.method
        if method.distils and not method.copies and {"logit", "feature", "adversarial"} <= set(method.unused):
            method = method.model_copy(update={"kind": DEEP_SUPERVISION})
        counting = settings_that_count(config.model_copy(update={"method": method}))
        stays = first.setdefault(json.dumps(counting), rung)
        if stays is not rung:
            twins[rung] = stays
    return twins


def refuse_what_a_study_decides(where: str, overrides: Sequence[str]) -> None:
    """Raises ConfigError naming the first override that would be overruled."""
    for override in overrides:
        for key, instead in _STUDYS_OWN.items():
            if _touches(override, key):
                raise ConfigError(f"{where}: {override}: a comparison decides {key} itself; {instead}")


def refuse_unfair_pairs(rung: Rung) -> None:
    """Raises ConfigError naming the first override by which the rung would see other data than the others."""
    for override in rung.overrides:
        if any(_touches(override, key) for key in _ONE_FOR_ALL):
            raise ConfigError(
                f"rung {rung.name}: {override}: it has to be the same for all rungs; give it as an override for the "
                "whole study"
            )


def _touches(override: str, key: str) -> bool:
    """Whether it sets the key, a part of it, or a section that has it."""
    given = override.partition("=")[0]
    return given == key or given.startswith(f"{key}.") or key.startswith(f"{given}.")


def plan(
    config_path: Path, overrides: Sequence[str], rung: Rung, seed: int, *, folder: StudyFolder
) -> tuple[PlannedRun, Config]:
    """One training and its settings, which are checked against what its folder holds.

    Raises:
        ConfigError: if the rung's settings are not valid, add nothing to another rung, or are others than the
            folder's run was started with.
    """
    target = folder.run(rung, seed)
    own = (
        *overrides,
        *rung.overrides,
        f"seed={seed}",
        f"out={json.dumps(str(target), ensure_ascii=False)}",
        "export.weights=last",
    )
    try:
        config = load_config(config_path, [*own, "train.resume=true"])
    except ConfigError as error:
        raise ConfigError(f"rung {rung.name}: {error}") from None
    if silent(rung, config):
        raise ConfigError(
            f"rung {rung.name}: {ADDED[rung.name]} is 0, so it would add nothing; give it a value, or leave the rung "
            "out by --kinds"
        )
    elsewhere = "another folder by --out" + ("" if rung in LADDER else " or another name for the rung")
    RunFolder(target).check(config, overwrite=False, elsewhere=elsewhere, replace="remove this folder")
    return PlannedRun(rung, seed, target, epochs=config.train.epochs, settings=dump_config(config)), config


def silent(rung: Rung, config: Config) -> bool:
    """Whether the one thing that a rung adds is switched off."""
    added = ADDED.get(rung.name)
    return added is not None and not functools.reduce(getattr, added.split("."), config)


def is_finished(run: PlannedRun) -> bool:
    """Whether it has its scores, which are all that a comparison wants of it."""
    return RunFolder(run.folder).scored


def is_cut_short(run: PlannedRun) -> bool:
    """Whether its export was stopped. One that failed would only fail again."""
    folder = RunFolder(run.folder)
    return folder.scored and not folder.finished and not run.log.error


def _read(path: Path, kind: type[_T], otherwise: _T) -> _T:
    """What a file of the study holds; `otherwise` if there is none.

    Raises:
        RunFolderError: if it holds something else.
    """
    if not path.is_file():
        return otherwise
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError:
        raise RunFolderError(f"{path} is damaged; remove it and start the comparison again") from None
