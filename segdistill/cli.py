"""The command line: `segdistill train | evaluate | export | prepare-data`; `tools/*.py` are the same commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from segdistill.errors import InterruptedRunError, UserError

USER_ERROR, INTERRUPTED = 2, 130


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
    """Overrides may stand on either side of an option, which argparse alone does not allow."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    strangers = [word for word in rest if word.startswith("-") or "overrides" not in arguments]
    if strangers:
        top.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest:
        arguments.overrides += rest
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

    evaluate = commands.add_parser("evaluate", help="score a run on a split")
    evaluate.add_argument("run_folder", type=Path, metavar="RUN")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="val")
    evaluate.add_argument(
        "--weights",
        choices=("deployed", "last", "best"),
        default="deployed",
        help="primary.safetensors, or a checkpoint with its branches",
    )
    evaluate.add_argument("--out", type=Path, help="JSON file; default: in the run folder")
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser("export", help="make a run's ONNX file again, and check it")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument("--out", type=Path, help="ONNX file; default: primary.onnx in the run folder")
    export.add_argument("--opset", type=int, help="of the ONNX standard; default: the run's")
    export.set_defaults(run=_export)

    prepare = commands.add_parser("prepare-data", help="put a data set in place and verify it")
    prepare.add_argument("dataset", choices=("camvid",))
    prepare.add_argument("--root", type=Path, help="default: $SEGDISTILL_CAMVID, then data/camvid")
    prepare.add_argument("--archive", type=Path, help="a copy of the archive instead of a download")
    prepare.set_defaults(run=_prepare)
    return top


# torch takes seconds to import, so a command imports what it needs when it runs.


def _train(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.train import train
    from segdistill.config_io import load_config

    overrides = [*arguments.overrides, *(["train.resume=true"] if arguments.resume else [])]
    train(load_config(arguments.config, overrides), overwrite=arguments.overwrite, console=console)


def _evaluate(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.evaluate import evaluate_run

    evaluate_run(
        arguments.run_folder,
        split=arguments.split,
        weights=arguments.weights,
        out=arguments.out,
        console=console,
    )


def _export(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.commands.export import export_run

    export_run(arguments.run_folder, out=arguments.out, opset=arguments.opset, console=console)


def _prepare(arguments: argparse.Namespace, console: Console) -> None:
    from segdistill.data.camvid import prepare

    console.print(prepare(arguments.root, archive=arguments.archive), highlight=False)


if __name__ == "__main__":
    sys.exit(main())
