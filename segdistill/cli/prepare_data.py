"""`segdistill prepare-data`."""

import argparse
from pathlib import Path

from rich.console import Console

from segdistill.cli.values import Commands, take_overrides


def add(commands: Commands) -> None:
    """The words of `prepare-data` and of its kinds of data."""
    parser = commands.add_parser("prepare-data", help="put a data set in place, verify it, count it")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    camvid = kinds.add_parser(
        "camvid", help="download CamVid, or unpack its archive, and verify every digest"
    )
    camvid.add_argument("--root", type=Path, help="default: $SEGDISTILL_CAMVID, then data/camvid")
    camvid.add_argument("--archive", type=Path, help="a copy of the archive instead of a download")
    camvid.set_defaults(run=_prepare_camvid)

    cityscapes = kinds.add_parser("cityscapes", help="count Cityscapes, say what is missing, open every file")
    cityscapes.add_argument("root", type=Path, metavar="ROOT", help="the folder of leftImg8bit and gtFine")
    cityscapes.add_argument("--quick", action="store_true", help="count the files, open none")
    cityscapes.set_defaults(run=_prepare_cityscapes)

    stats = kinds.add_parser("stats", help="check the data of a configuration, count classes, give weights")
    stats.add_argument("config", type=Path, help="YAML file, see configs/")
    take_overrides(stats, help="e.g. data.root=DIR")
    stats.add_argument("--out", type=Path, help="JSON file of the same numbers")
    stats.set_defaults(run=_prepare_stats)


def _prepare_camvid(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.data.camvid import prepare

    console.print(prepare(arguments.root, archive=arguments.archive))


def _prepare_cityscapes(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.prepare_data import check_cityscapes

    check_cityscapes(arguments.root, quick=arguments.quick, console=console)


def _prepare_stats(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.prepare_data import print_statistics

    print_statistics(arguments.config, arguments.overrides, out=arguments.out, console=console)
