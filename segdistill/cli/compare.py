"""`segdistill compare`."""

import argparse
from pathlib import Path

from rich.console import Console

from segdistill.cli.values import Commands, take_overrides, whole_number
from segdistill.study.rungs import LADDER

LADDER_NAMES = tuple(rung.name for rung in LADDER)


def add(commands: Commands) -> None:
    """The words of `compare`."""
    compare = commands.add_parser("compare", help="train several methods with several seeds and compare them")
    compare.add_argument("config", type=Path, help="YAML file, see configs/")
    take_overrides(compare, help="for every rung")
    compare.add_argument(
        "--kinds",
        nargs="+",
        choices=LADDER_NAMES,
        help="default: all, but reparam only if it is more than baseline",
    )
    compare.add_argument(
        "--rung",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="a rung of your own; repeatable",
    )
    compare.add_argument("--seeds", nargs="+", type=whole_number(0), default=[0, 1, 2], help="default: 0 1 2")
    compare.add_argument(
        "--jobs",
        type=whole_number(1),
        default=1,
        help="trainings at a time, which share cores or GPUs; default: 1",
    )
    compare.add_argument("--out", type=Path, help="folder of the study; default: runs/<name>_compare")
    compare.add_argument("--report", action="store_true", help="train nothing, report what is finished")
    compare.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.config_io import load_config
    from segdistill.study.rungs import parse_rung

    rungs = [parse_rung(text) for text in arguments.rung]
    # What is wrong with it is told before torch is imported.
    load_config(arguments.config, arguments.overrides)
    from segdistill.commands.compare import compare

    compare(
        arguments.config,
        arguments.overrides,
        kinds=arguments.kinds,
        rungs=rungs,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        out=arguments.out,
        only_report=arguments.report,
        console=console,
    )
