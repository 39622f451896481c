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

from segdistill.errors import ExportError, InterruptedRunError, UserError
from segdistill.study.rungs import LADDER

USER_ERROR, INTERRUPTED = 2, 130
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
_TEXT_OPTIONS = ("--out", "--root", "--archive", "--rung")  # what follows them may look like an override
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

    evaluate = commands.add_parser("evaluate", help="score a run or an ONNX file on a split")
    evaluate.add_argument("model", type=Path, metavar="RUN|FILE.onnx")
    evaluate.add_argument("overrides", nargs="*", metavar="data.root=DIR", help="where the data lie now")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="val")
    evaluate.add_argument(
        "--weights",
        choices=("deployed", "last", "best"),
        default="deployed",
        help="of a run: primary.safetensors, or a checkpoint with its branches",
    )
    evaluate.add_argument("--out", type=Path, help="JSON file; default: in the run folder")
    evaluate.set_defaults(run=_evaluate)

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

    prepare = commands.add_parser("prepare-data", help="put a data set in place and verify it")
    prepare.add_argument("dataset", choices=("camvid",))
    prepare.add_argument("--root", type=Path, help="default: $SEGDISTILL_CAMVID, then data/camvid")
    prepare.add_argument("--archive", type=Path, help="a copy of the archive instead of a download")
    prepare.set_defaults(run=_prepare)
    return top


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


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} should be height x width in pixels, e.g. 360x480")
    return int(found[1]), int(found[2])


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
    from segdistill.commands.evaluate import evaluate_onnx, evaluate_run

    if arguments.model.suffix.lower() == ".onnx":
        evaluate_onnx(
            arguments.model, arguments.overrides, split=arguments.split, out=arguments.out, console=console
        )
        return
    evaluate_run(
        arguments.model,
        arguments.overrides,
        split=arguments.split,
        weights=arguments.weights,
        out=arguments.out,
        console=console,
    )


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


def _prepare(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.data.camvid import prepare

    console.print(prepare(arguments.root, archive=arguments.archive), highlight=False)


if __name__ == "__main__":
    sys.exit(main())
