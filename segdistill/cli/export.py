"""`segdistill export`."""

import argparse
from pathlib import Path

from rich.console import Console

from segdistill.cli.values import Commands, size, take_overrides, whole_number
from segdistill.errors import ExportError
from segdistill.given_model import refuse_no_run


def add(commands: Commands) -> None:
    """The words of `export`."""
    export = commands.add_parser("export", help="a stream of a run as an ONNX file that is checked")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    take_overrides(export, metavar="data.root=DIR", help="where the run's data lie now")
    export.add_argument(
        "--stream", default="primary", help="primary, a branch (e.g. branch3), or all; default: primary"
    )
    export.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: fp32")
    export.add_argument(
        "--input",
        choices=("tensor", "image"),
        default="tensor",
        help="tensor: normalised floats in, logits out; image: uint8 RGB in, class indexes out; default: tensor",
    )
    export.add_argument("--layout", choices=("nchw", "nhwc"), help="default: nchw for tensor, nhwc for image")
    export.add_argument(
        "--fit",
        choices=("resize", "pad"),
        help="image: resize to the trained size and back (default), or pad to the stride",
    )
    export.add_argument(
        "--confidence",
        action="store_true",
        help="image: also give the softmax of the class that was chosen, one map, 0 to 1",
    )
    export.add_argument("--batch", type=whole_number(1), help="images per call; default: any number")
    export.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="of the input in pixels; default: any. The network of an image graph works at the trained size all "
        "the same, unless --fit pad",
    )
    export.add_argument("--opset", type=whole_number(1), help="of the ONNX standard; default: the run's")
    export.add_argument(
        "--calibration",
        choices=("minmax", "entropy", "percentile"),
        help="int8: how the range of a tensor is found; default: minmax",
    )
    export.add_argument(
        "--calibration-images",
        type=whole_number(1),
        help="int8: training images it looks at; default: 64",
    )
    export.add_argument(
        "--reduce-range",
        action="store_true",
        help="int8: 7-bit weights, for a device with an x86 CPU without VNNI; chosen by itself if this is one. Weights "
        "of 8 bits are for x86 CPUs with VNNI and for ARM",
    )
    export.add_argument(
        "--web",
        type=Path,
        metavar="DIR",
        help="also write a page that runs it (of several the first one) in a browser",
    )
    export.add_argument(
        "--web-runtime",
        type=Path,
        metavar="FILE",
        help="npm archive of onnxruntime-web instead of a download",
    )
    export.add_argument(
        "--threads",
        type=whole_number(1),
        default=0,
        help="of the CPU, on which files are timed; default: ONNX Runtime's choice",
    )
    export.add_argument("--simplify", action="store_true", help="fold and merge nodes by onnxslim")
    export.add_argument("--out", type=Path, help="ONNX file or folder; default: in the run folder")
    export.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    _refuse_what_does_not_go_together(arguments)
    refuse_no_run(arguments.run_folder)

    from segdistill.commands.export import WebPage, export_run
    from segdistill.commands.wanted_file import Wanted
    from segdistill.export.quantize import needs_reduce_range

    of_image = arguments.input == "image"
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
        calibration=arguments.calibration or "minmax",
        calibration_images=arguments.calibration_images or 64,
        reduce_range=arguments.reduce_range or needs_reduce_range(),
    )
    export_run(
        arguments.run_folder,
        arguments.overrides,
        stream=arguments.stream,
        wanted=wanted,
        out=arguments.out,
        web=WebPage(arguments.web, arguments.web_runtime) if arguments.web else None,
        threads=arguments.threads,
        console=console,
    )


def _refuse_what_does_not_go_together(arguments: argparse.Namespace) -> None:
    """Raises ExportError for an option without the one that it belongs to."""
    of_image = arguments.input == "image"
    if arguments.confidence and not of_image:
        raise ExportError("--confidence needs --input image; a tensor graph gives logits")
    if arguments.web and not of_image:
        raise ExportError("--web needs --input image: the page gives the network decoded images")
    if arguments.fit and not of_image:
        raise ExportError("--fit needs --input image; a tensor graph always pads to the stride")
    if arguments.layout == "nhwc" and not of_image:
        raise ExportError(
            "--layout nhwc needs --input image; a tensor graph takes normalised images as torch does"
        )
    if arguments.precision != "int8" and (
        arguments.calibration or arguments.calibration_images or arguments.reduce_range
    ):
        raise ExportError("--calibration, --calibration-images and --reduce-range need --precision int8")
    if arguments.web_runtime and not arguments.web:
        raise ExportError("--web-runtime needs --web DIR, the page that it is for")
