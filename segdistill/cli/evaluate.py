"""`segdistill evaluate`."""

import argparse
from pathlib import Path

from rich.console import Console

from segdistill.cli.values import Commands, number, size, take_overrides, whole_number
from segdistill.errors import EvaluationError
from segdistill.given_model import is_onnx, refuse_no_onnx, refuse_no_run


def add(commands: Commands) -> None:
    """The words of `evaluate`."""
    evaluate = commands.add_parser("evaluate", help="score a run, an ONNX file or stored masks on a split")
    evaluate.add_argument("model", type=Path, metavar="RUN|FILE.onnx|CONFIG.yaml")
    take_overrides(evaluate, metavar="data.root=DIR", help="where the data lie now")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="val", help="default: val")
    evaluate.add_argument(
        "--weights",
        choices=("deployed", "last", "best"),
        default="deployed",
        help="of a run: primary.safetensors, or a checkpoint with its branches",
    )
    evaluate.add_argument(
        "--size", type=size, metavar="HxW", help="that images are resized to; default: the network's"
    )
    evaluate.add_argument("--window", type=size, metavar="HxW", help="slide a window over the resized image")
    evaluate.add_argument("--stride", type=size, metavar="HxW", help="of the window; default: half of it")
    evaluate.add_argument(
        "--scales",
        nargs="+",
        type=number(0.1, 10),
        default=[1.0],
        help="average over these multiples of the size",
    )
    evaluate.add_argument("--flip", action="store_true", help="average over the mirrored image, too")
    evaluate.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="score these PNGs of class indexes; the model names the data",
    )
    evaluate.add_argument(
        "--label-ids",
        action="store_true",
        help="the masks hold Cityscapes' label ids, as --submit writes them",
    )
    evaluate.add_argument(
        "--submit", type=Path, metavar="DIR", help="also write label-id PNGs for Cityscapes' server"
    )
    evaluate.add_argument(
        "--worst",
        type=whole_number(1),
        default=0,
        metavar="N",
        help="also a page with the images and regions that cost the most mIoU",
    )
    evaluate.add_argument(
        "--confusions",
        type=whole_number(1),
        nargs="?",
        const=10,
        default=0,
        metavar="N",
        help="also a page with the pairs of classes most often mixed up; default: 10 of them",
    )
    evaluate.add_argument(
        "--devices", type=whole_number(1), default=1, help="processes that share the images; default: 1"
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        help="JSON file; default: in the run folder, beside the ONNX file or the masks' folder",
    )
    evaluate.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    model, weights = arguments.model, arguments.weights
    if weights != "deployed" and (arguments.masks or is_onnx(model)):
        raise EvaluationError("--weights chooses among the networks of a run; name the run's folder")
    if arguments.label_ids and not arguments.masks:
        raise EvaluationError("--label-ids says what the PNGs of --masks DIR hold; name that folder, too")
    if not arguments.masks:
        if model.suffix.lower() in (".yaml", ".yml"):
            raise EvaluationError(
                f"{model} is a configuration, which names data but no network: add --masks DIR, or name a run's folder"
            )
        (refuse_no_onnx if is_onnx(model) else refuse_no_run)(model)

    from segdistill.commands.evaluate import Asked, evaluate_masks, evaluate_onnx, evaluate_run
    from segdistill.commands.subjects import Wishes

    asked = Asked(
        split=arguments.split,
        wishes=Wishes(
            arguments.size, arguments.window, arguments.stride, tuple(arguments.scales), arguments.flip
        ),
        devices=arguments.devices,
        out=arguments.out,
        submit=arguments.submit,
        worst=arguments.worst,
        confusions=arguments.confusions,
    )
    if arguments.masks:
        evaluate_masks(
            model,
            arguments.overrides,
            asked,
            masks=arguments.masks,
            label_ids=arguments.label_ids,
            console=console,
        )
    elif is_onnx(model):
        evaluate_onnx(model, arguments.overrides, asked, console=console)
    else:
        evaluate_run(model, arguments.overrides, asked, weights=weights, console=console)
