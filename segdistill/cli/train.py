"""`segdistill train`."""

import argparse
from pathlib import Path
from shlex import quote

from rich.console import Console

from segdistill.cli.values import Commands, take_overrides
from segdistill.errors import RunFolderError
from segdistill.orphans import stop_with_study


def add(commands: Commands) -> None:
    """The words of `train`."""
    train = commands.add_parser("train", help="train by a configuration, evaluate and export the result")
    train.add_argument("config", type=Path, help="YAML file, see configs/")
    take_overrides(train, help="e.g. train.epochs=40 seed=1")
    begun = train.add_mutually_exclusive_group()
    begun.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    begun.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    train.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.config_io import load_config

    stop_with_study()
    overrides = [*arguments.overrides, *(["train.resume=true"] if arguments.resume else [])]
    # What is wrong with it is told before torch is imported.
    config = load_config(arguments.config, overrides)
    if config.train.resume and not any(one.startswith(("out=", "name=")) for one in overrides):
        _refuse_moved(arguments.config, config.run_folder)
    from segdistill.commands.train import train

    train(config, overwrite=arguments.overwrite, console=console)


def _refuse_moved(path: Path, out: Path) -> None:
    """Refuse the settings of a run that was moved: they say where it was, and there it would begin anew.

    Raises:
        RunFolderError: if the file lies in a run's folder that is not `out`.
    """
    here = path.resolve().parent
    of_a_run = path.name == "config.yaml" and (here / "checkpoints" / "last.pt").is_file()
    if of_a_run and here != out.resolve():
        raise RunFolderError(
            f"{path} lies in the folder of a run and says out={out}, another folder. Go on with the run here by "
            f"--resume {quote(f'out={here}')}, or with the one there by naming its own settings"
        )
