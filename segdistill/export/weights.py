"""`primary.safetensors`: the deployed network's tensors, and in its metadata all that rebuilds it in plain smp."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from torch import nn

from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import RunFolderError, first_line
from segdistill.export.feed import from_values, to_values
from segdistill.files import write_atomically
from segdistill.normalisation import Normalisation


@dataclass(frozen=True)
class Deployed:
    """How a deployed network is rebuilt and fed.

    Attributes:
        arch: smp's architecture name.
        keywords: of `smp.create_model` beside `arch`; no weights are downloaded.
        taxonomy: what its classes mean.
        normalisation: of the input image.
        size: (height, width) in pixels it was trained and scored at.
        multiple: what height and width of an input are padded to.
    """

    arch: str
    keywords: Mapping[str, Any]
    taxonomy: Taxonomy
    normalisation: Normalisation
    size: tuple[int, int]
    multiple: int

    def rebuild(self) -> nn.Module:
        """The smp model with random weights."""
        return smp.create_model(self.arch, **self.keywords)


def save_deployed(path: Path, primary: nn.Module, deployed: Deployed) -> None:
    """Write tensors and description; the metadata's values are JSON."""
    metadata = {
        "arch": deployed.arch,
        "keywords": dict(deployed.keywords),
        **to_values(deployed.taxonomy, deployed.normalisation),
        "size": deployed.size,
        "multiple": deployed.multiple,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in primary.state_dict().items()}
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    # Not by save_file, which for a full disk raises an error of its own instead of OSError.
    content = _with_sorted_metadata(as_bytes(tensors, metadata=texts))

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file whose bytes follow from what is in it: by itself its metadata come in any order.

    It is 8 bytes of the header's length, the header in JSON, padded by blanks to a multiple of 8, and the tensors.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def load_deployed(path: Path) -> tuple[nn.Module, Deployed]:
    """Rebuild a deployed network in evaluation mode.

    Raises:
        RunFolderError: if the file is missing, damaged or was not written by `save_deployed`.
    """
    if not path.exists():
        raise RunFolderError(f"{path}: no such file; its run makes it when it is gone on with by --resume")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
        values = {key: json.loads(text) for key, text in texts.items()}
        taxonomy, normalisation = from_values(values)
        deployed = Deployed(
            arch=values["arch"],
            keywords=values["keywords"],
            taxonomy=taxonomy,
            normalisation=normalisation,
            size=(values["size"][0], values["size"][1]),
            multiple=values["multiple"],
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is not a network deployed by segdistill ({error!r}); to make it anew remove the "
            "summary.json beside it and --resume the run"
        ) from None
    model = deployed.rebuild()
    try:
        model.load_state_dict(load_file(path), strict=True)
    except RuntimeError as error:
        raise RunFolderError(
            f"{path} does not fit its own description ({first_line(error)}); was it made with other versions of smp "
            "and timm, which the run's summary.json names?"
        ) from None
    return model.eval(), deployed
