"""`segdistill predict`."""

import argparse
from pathlib import Path

from rich.console import Console

from segdistill.cli.values import Commands, number
from segdistill.given_model import refuse_no_network


def add(commands: Commands) -> None:
    """The words of `predict`."""
    predict = commands.add_parser("predict", help="masks and overlays of images or a video")
    predict.add_argument("model", type=Path, metavar="MODEL", help="a run folder or an ONNX file")
    predict.add_argument(
        "source", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="any size; of a folder all images below it"
    )
    predict.add_argument("--out", type=Path, required=True, help="folder of the results")
    predict.add_argument(
        "--stream", help="a branch of the run, or ensemble; default: the deployed network, or the file's"
    )
    predict.add_argument(
        "--opacity", type=number(0, 1), default=0.5, help="of the classes' colours, 0 to 1; default: 0.5"
    )
    predict.add_argument("--no-legend", dest="legend", action="store_false", help="overlays without a legend")
    predict.add_argument(
        "--frame-masks", action="store_true", help="of a video, write every frame's mask, too"
    )
    predict.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.predict_sources import check_places

    refuse_no_network(arguments.model)
    check_places(arguments.source, arguments.out)

    from segdistill.commands.predict import predict

    predict(
        arguments.model,
        arguments.source,
        out=arguments.out,
        stream=arguments.stream,
        opacity=arguments.opacity,
        legend=arguments.legend,
        frame_masks=arguments.frame_masks,
        console=console,
    )
