"""What a comparison consists of: rungs, seeds, their folders, and what has to hold before anything is trained."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdistill.commands.run_folder import RunFolder
from segdistill.commands.shared_beginning import with_beginnings
from segdistill.config import Config
from segdistill.config_io import dump_config, load_config
from segdistill.errors import ConfigError
from segdistill.study.rungs import ADDED, LADDER, Rung
from segdistill.study.runner import PlannedRun

#: Keys that a comparison sets itself, and keys that have to be the same in all rungs for pairs to be pairs.
_STUDYS_OWN = ("seed", "out", "export.weights", "train.resume")
_ONE_FOR_ALL = ("data.kind", "data.root", "data.size", "data.folder", "data.synthetic")


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

    def remembered(self, ladder: Sequence[Rung]) -> list[Rung]:
        """`ladder` and the rungs of earlier calls, those of the program's ladder first."""
        earlier = [Rung(name, tuple(overrides)) for name, overrides in read_json(self.rungs).items()]
        every = {rung.name: rung for rung in (*earlier, *ladder)}
        order = [rung.name for rung in LADDER if rung.name in every]
        return [every[name] for name in (*order, *(name for name in every if name not in order))]

    def run(self, rung: Rung, seed: int) -> Path:
        return self.path / rung.name / f"seed{seed}"

    def seeds(self, rung: Rung) -> list[int]:
        """Those that have a finished run."""
        found = (path.name.removeprefix("seed") for path in (self.path / rung.name).glob("seed*/"))
        return sorted(
            int(seed) for seed in found if seed.isdigit() and RunFolder(self.run(rung, int(seed))).scored
        )


@dataclass(frozen=True)
class Study:
    """Everything that one call of `segdistill compare` is about.

    Attributes:
        base: the study's configuration, before any rung changes it.
        source: the YAML file it comes from, and
        overrides: what was changed in it for every rung.
        folder: of runs and results.
        ladder: the rungs of this call.
        rungs: those and the rungs of earlier calls, in the order of the report.
        planned: the runs of this call, by seed and rung.
        known: those and what earlier calls have finished, other seeds and other rungs.
    """

    base: Config
    source: Path
    overrides: tuple[str, ...]
    folder: StudyFolder
    ladder: tuple[Rung, ...]
    rungs: tuple[Rung, ...]
    planned: tuple[PlannedRun, ...]
    known: tuple[PlannedRun, ...]

    @property
    def todo(self) -> list[PlannedRun]:
        """Planned and not finished."""
        return [run for run in self.planned if not is_finished(run)]

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
    own = [rung for rung in LADDER if (not silent(rung, base) if kinds is None else rung.name in kinds)]
    ladder = [*own, *rungs]
    for what, names in (("--rung", [rung.name for rung in ladder]), ("--seeds", seeds)):
        if twice := sorted({str(name) for name in names if list(names).count(name) > 1}):
            raise ConfigError(f"{what}: {', '.join(twice)} is given twice")
    refuse_what_a_study_decides("the overrides", overrides, _STUDYS_OWN)
    for rung in rungs:
        refuse_what_a_study_decides(f"rung {rung.name}", rung.overrides, (*_STUDYS_OWN, *_ONE_FOR_ALL))
    folder = StudyFolder(out or Path("runs") / f"{base.name}_compare")
    planned = with_beginnings(
        [plan(config_path, overrides, rung, seed, folder=folder) for seed in seeds for rung in ladder]
    )
    every = folder.remembered(ladder)
    earlier = [
        plan(config_path, overrides, rung, seed, folder=folder)[0]
        for rung in every
        for seed in folder.seeds(rung)
        if not (rung in ladder and seed in seeds)
    ]
    return Study(
        base=base,
        source=config_path,
        overrides=tuple(overrides),
        folder=folder,
        ladder=tuple(ladder),
        rungs=tuple(every),
        planned=tuple(planned),
        known=(*planned, *earlier),
    )


def refuse_what_a_study_decides(where: str, overrides: Sequence[str], keys: Sequence[str]) -> None:
    """Raises ConfigError naming the first override that would be overruled, or would make pairs unfair."""
    for override in overrides:
        key = override.partition("=")[0]
        if any(key == one or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in keys):
            raise ConfigError(
                f"{where}: {override}: a comparison decides that itself, or it has to be the same for all rungs; "
                "use --seeds, --out, or an override for the whole study"
            )


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
        f"out={json.dumps(str(target))}",
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
    RunFolder(target).check(config, overwrite=False)
    return PlannedRun(rung, seed, target, epochs=config.train.epochs, settings=dump_config(config)), config


def silent(rung: Rung, config: Config) -> bool:
    """Whether the one thing that a rung adds is switched off."""
    added = ADDED.get(rung.name)
    return added is not None and not functools.reduce(getattr, added.split("."), config)


def is_finished(run: PlannedRun) -> bool:
    return RunFolder(run.folder).scored


def read_json(path: Path) -> dict[str, Any]:
    """Empty if there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}
