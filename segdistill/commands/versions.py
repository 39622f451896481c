"""By which versions of the program, and of what its numbers depend on, a run was made."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import segdistill

_PACKAGES = (
    "segdistill",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "onnx",
    "onnxruntime",
)


def versions() -> dict[str, str]:
    """The versions of this program (with a hash of its code) and of the packages its numbers depend on."""
    code = code_hash(Path(segdistill.__file__).parent)
    return {name: version(name) + (f"+code.{code}" if name == "segdistill" else "") for name in _PACKAGES}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What had another version before, in words."""
    return ", ".join(f"{name} {one}" for name, one in before.items() if now.get(name) != one)


def in_their_order(programs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Package -> its version, or several by which a run was trained one after the other."""
    names = dict.fromkeys(name for program in programs for name in program)
    return {
        name: " then ".join(dict.fromkeys(program[name] for program in programs if name in program))
        for name in names
    }


@cache
def code_hash(package: Path) -> str:
    """A hash of all Python files below a folder, as they were when this process first asked: two runs of one version
    may have been made by different working copies of it.
    """
    sources = sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).parts)
    digest = hashlib.sha256()
    for path in sources:
        text = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:10]
