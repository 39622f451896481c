"""Whether what a command is to work with is there. Nothing here needs torch, whose import takes seconds."""

from pathlib import Path

from segdistill.errors import ExportError, RunFolderError

CONFIG = "config.yaml"
PRIMARY_WEIGHTS = "primary.safetensors"


def is_onnx(path: Path) -> bool:
    """Whether a path is that of an ONNX file, by its name."""
    return path.suffix.lower() == ".onnx"


def refuse_no_run(path: Path) -> None:
    """Raises RunFolderError if this is not the folder of a run."""
    if not (path / CONFIG).is_file():
        raise RunFolderError(
            f"{path} is not the folder of a run: it has no {CONFIG}. Runs lie in runs/<name> unless `out` says "
            "otherwise"
        )


def refuse_no_onnx(path: Path) -> None:
    """Raises ExportError if there is no such file."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file; make it by tools/export.py RUN")


def refuse_no_network(path: Path) -> None:
    """Refuse a path that leads to no network; of the folder of a run, its deployed weights are enough.

    Raises:
        ExportError: if an ONNX file is named that is not there.
        RunFolderError: if it is neither such a file nor the folder of a run.
    """
    if is_onnx(path):
        refuse_no_onnx(path)
    elif path.is_file():
        raise RunFolderError(f"{path} is neither the folder of a run nor an ONNX file (.onnx)")
    elif not (path / PRIMARY_WEIGHTS).is_file():
        refuse_no_run(path)
