"""The command line: `segdistill train | compare | evaluate | predict | export | prepare-data`.

`tools/*.py` are the same commands as scripts.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from segdistill.errors import EvaluationError, ExportError, InterruptedRunError, UserError
from segdistill.study.rungs import LADDER

USER_ERROR, INTERRUPTED = 2, 130
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
_TEXT_OPTIONS = (
    "--out",
    "--root",
    "--archive",
    "--rung",
    "--masks",
    "--submit",
)  # what follows them may look like an override
_LADDER = tuple(rung.name for rung in LADDER)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, 2 for an error the user can put right (its message is printed alone), 130 after an interruption.
    """
    arguments = parse(argv)
    console = Console(soft_wrap=True)
    try:
        arguments.run(arguments, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(
            f"error: {error} (is there such a folder, may it be written to, is the disk full?)",
            file=sys.stderr,
        )
        return USER_ERROR
    except InterruptedRunError as interruption:
        print(interruption, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand anywhere, also behind an option or its values, which argparse alone does not allow."""
    words: list[str] = []
    overrides: list[str] = []
    for before, word in itertools.pairwise(["", *(sys.argv[1:] if argv is None else argv)]):
        is_override = _OVERRIDE.match(word) and before not in _TEXT_OPTIONS
        (overrides if is_override else words).append(word)
    top = parser()
    arguments, rest = top.parse_known_args(words)
    strangers = rest + (overrides if "overrides" not in arguments else [])
    if strangers:
        top.error(f"unrecognized arguments: {' '.join(strangers)}")
    if overrides:
        arguments.overrides += overrides
    return arguments


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    top = argparse.ArgumentParser(prog="segdistill", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train by a configuration, evaluate and export the result")
    train.add_argument("config", type=Path, help="YAML file, see configs/")
    train.add_argument("overrides", nargs="*", metavar="key.sub=value", help="e.g. train.epochs=40 seed=1")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    train.set_defaults(run=_train)

    compare = commands.add_parser("compare", help="train several methods with several seeds and compare them")
    compare.add_argument("config", type=Path, help="YAML file, see configs/")
    compare.add_argument("overrides", nargs="*", metavar="key.sub=value", help="for every rung")
    compare.add_argument("--kinds", nargs="+", choices=_LADDER, default=_LADDER, help="default: all of them")
    compare.add_argument(
        "--rung",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="a rung of your own; repeatable",
    )
    compare.add_argument(
        "--seeds", nargs="+", type=_whole_number(0), default=[0, 1, 2], help="default: 0 1 2"
    )
    compare.add_argument(
        "--jobs", type=_whole_number(1), default=1, help="trainings at a time, which share the cores"
    )
    compare.add_argument("--out", type=Path, help="folder of the study; default: runs/<name>_compare")
    compare.add_argument("--report", action="store_true", help="train nothing, report what is finished")
    compare.set_defaults(run=_compare)

    _add_evaluate(commands)

    export = commands.add_parser("export", help="a stream of a run as an ONNX file that is checked")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument(
        "overrides", nargs="*", default=[], metavar="data.root=DIR", help="where the run's data lie now"
    )
    export.add_argument(
        "--stream", default="primary", help="primary, a branch (e.g. branch3), or all; default: primary"
    )
    export.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    export.add_argument(
        "--input",
        choices=("tensor", "image"),
        default="tensor",
        help="tensor: normalised floats in, logits out; image: uint8 RGB in, class indexes out",
    )
    export.add_argument("--layout", choices=("nchw", "nhwc"), help="default: nchw for tensor, nhwc for image")
    export.add_argument(
        "--fit",
        choices=("resize", "pad"),
        help="image: resize to the trained size and back (default), or pad to the stride",
    )
    export.add_argument("--confidence", action="store_true", help="image: also give each class's softmax")
    export.add_argument("--batch", type=_whole_number(1), help="images per call; default: any number")
    export.add_argument("--size", type=_size, metavar="HxW", help="of the input in pixels; default: any")
    export.add_argument("--opset", type=_whole_number(1), help="of the ONNX standard; default: the run's")
    export.add_argument(
        "--calibration",
        choices=("minmax", "entropy", "percentile"),
        default="minmax",
        help="int8: how the range of a tensor is found; default: minmax",
    )
    export.add_argument(
        "--calibration-images",
        type=_whole_number(1),
        default=64,
        help="int8: training images it looks at; default: 64",
    )
    export.add_argument(
        "--reduce-range",
        action="store_true",
        help="int8: 7-bit weights, for x86 CPUs without VNNI; chosen by itself if this is one",
    )
    export.add_argument("--web", type=Path, metavar="DIR", help="also write a page that runs it in a browser")
    export.add_argument(
        "--web-runtime",
        type=Path,
        metavar="FILE",
        help="npm archive of onnxruntime-web instead of a download",
    )
    export.add_argument("--simplify", action="store_true", help="fold and merge nodes by onnxslim")
    export.add_argument("--out", type=Path, help="ONNX file or folder; default: in the run folder")
    export.set_defaults(run=_export)

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
        "--opacity", type=_fraction, default=0.5, help="of the classes' colours, 0 to 1; default: 0.5"
    )
    predict.add_argument("--no-legend", dest="legend", action="store_false", help="overlays without a legend")
    predict.add_argument(
        "--frame-masks", action="store_true", help="of a video, write every frame's mask, too"
    )
    predict.set_defaults(run=_predict)

    _add_prepare_data(
        commands.add_parser("prepare-data", help="put a data set in place, verify it, count it")
    )
    return top


def _add_prepare_data(parser: argparse.ArgumentParser) -> None:
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
    stats.add_argument("overrides", nargs="*", metavar="key.sub=value", help="e.g. data.root=DIR")
    stats.add_argument("--out", type=Path, help="JSON file of the same numbers")
    stats.set_defaults(run=_prepare_stats)


def _whole_number(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} should be a whole number of at least {least}")
        return int(text)

    return read


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0 to 1")
    return value


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0.1 to 10")
    return value


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} should be height x width in pixels, e.g. 360x480")
    return int(found[1]), int(found[2])


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser("evaluate", help="score a run, an ONNX file or stored masks on a split")
    evaluate.add_argument("model", type=Path, metavar="RUN|FILE.onnx|CONFIG.yaml")
    evaluate.add_argument("overrides", nargs="*", metavar="data.root=DIR", help="where the data lie now")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="val")
    evaluate.add_argument(
        "--weights",
        choices=("deployed", "last", "best"),
        default="deployed",
        help="of a run: primary.safetensors, or a checkpoint with its branches",
    )
    evaluate.add_argument(
        "--size", type=_size, metavar="HxW", help="that images are resized to; default: the network's"
    )
    evaluate.add_argument("--window", type=_size, metavar="HxW", help="slide a window over the resized image")
    evaluate.add_argument("--stride", type=_size, metavar="HxW", help="of the window; default: half of it")
    evaluate.add_argument(
        "--scales", nargs="+", type=_factor, default=[1.0], help="average over these multiples of the size"
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
        type=_whole_number(1),
        default=0,
        metavar="N",
        help="also a page with the images and regions that cost the most mIoU",
    )
    evaluate.add_argument(
        "--confusions",
        type=_whole_number(1),
        nargs="?",
        const=10,
        default=0,
        metavar="N",
        help="also a page with the pairs of classes most often mixed up; default: 10 of them",
    )
    evaluate.add_argument(
        "--devices", type=_whole_number(1), default=1, help="processes that share the images; default: 1"
    )
    evaluate.add_argument("--out", type=Path, help="JSON file; default: in the run folder")
    evaluate.set_defaults(run=_evaluate)


# torch takes seconds to import, so a command imports what it needs when it runs.


def _train(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.train import train
    from segdistill.config_io import load_config

    overrides = [*arguments.overrides, *(["train.resume=true"] if arguments.resume else [])]
    train(load_config(arguments.config, overrides), overwrite=arguments.overwrite, console=console)


def _compare(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.compare import compare
    from segdistill.study.rungs import parse_rung

    compare(
        arguments.config,
        arguments.overrides,
        kinds=arguments.kinds,
        rungs=[parse_rung(text) for text in arguments.rung],
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        out=arguments.out,
        only_report=arguments.report,
        console=console,
    )


def _evaluate(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.evaluate import Asked, evaluate_masks, evaluate_onnx, evaluate_run
    from segdistill.commands.subjects import Wishes

    model, suffix = arguments.model, arguments.model.suffix.lower()
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
    elif arguments.label_ids:
        raise EvaluationError("--label-ids says what the PNGs of --masks DIR hold; name that folder, too")
    elif suffix in (".yaml", ".yml"):
        raise EvaluationError(
            f"{model} is a configuration, which names data but no network: add --masks DIR, or name a run's folder"
        )
    elif suffix == ".onnx":
        evaluate_onnx(model, arguments.overrides, asked, console=console)
    else:
        evaluate_run(model, arguments.overrides, asked, weights=arguments.weights, console=console)


def _export(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.export import Wanted, WebPage, export_run
    from segdistill.export.quantize import needs_reduce_range

    of_image = arguments.input == "image"
    if arguments.confidence and not of_image:
        raise ExportError("--confidence needs --input image; a tensor graph gives logits")
    if arguments.web and not of_image:
        raise ExportError("--web needs --input image: the page gives the network decoded images")
    if arguments.fit and not of_image:
        raise ExportError("--fit needs --input image; a tensor graph always pads to the stride")
    if arguments.web_runtime and not arguments.web:
        raise ExportError("--web-runtime needs --web DIR, the page that it is for")
    wanted = Wanted(
        input=arguments.input,
        layout=arguments.layout or ("nhwc" if of_image else "nchw"),
        fit=(arguments.fit or "resize") if of_image else "pad",
        confidence=arguments.confidence,
        precision=arguments.precision,
        batch=arguments.batch,
        size=arguments.size,
        opset=arguments.opset,
        simplify=arguments.simplify,
        calibration=arguments.calibration,
        calibration_images=arguments.calibration_images,
        reduce_range=arguments.reduce_range or needs_reduce_range(),
    )
    export_run(
        arguments.run_folder,
        arguments.overrides,
        stream=arguments.stream,
        wanted=wanted,
        out=arguments.out,
        web=WebPage(arguments.web, arguments.web_runtime) if arguments.web else None,
        console=console,
    )


def _predict(arguments: argparse.Namespace, console: Console) -> None:
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


def _prepare_cityscapes(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.prepare_data import check_cityscapes

    check_cityscapes(arguments.root, quick=arguments.quick, console=console)


def _prepare_stats(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.prepare_data import print_statistics

    print_statistics(arguments.config, arguments.overrides, out=arguments.out, console=console)


def _prepare_camvid(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.data.camvid import prepare

    console.print(prepare(arguments.root, archive=arguments.archive), highlight=False)


if __name__ == "__main__":
    sys.exit(main())
