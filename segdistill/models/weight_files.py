"""Files with weights that a network begins with: what is in them, and how they get into it."""

import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder
from torch import Tensor, nn

from segdistill.errors import WeightsError, first_line
from segdistill.files import expanded
from segdistill.models.bundled import NONE
from segdistill.normalisation import IMAGENET, Normalisation, Triple

_SAFETENSORS = ".safetensors"
_HEAD = "segmentation_head"  # smp's name of the layers that the number of classes decides
_COUNTER = "num_batches_tracked"  # of batch norm; nothing depends on it, and some files lack it

#: smp's own encoders whose weights do not expect `IMAGENET`, and timm's names of the same weights. smp itself would
#: have to ask the model hub (`smp.encoders.get_preprocessing_params`), also where the weights are at hand.
_TIMM_NAMES = {
    "inceptionv4": "inception_v4",
    "inceptionresnetv2": "inception_resnet_v2",
    "xception": "legacy_xception",
    **{f"timm-tf_efficientnet_lite{size}": f"tf_efficientnet_lite{size}" for size in range(5)},
    **{f"dpn{size}": f"dpn{size}.mx_in1k" for size in ("68", "68b", "92", "98", "107", "131")},
}


@dataclass(frozen=True)
class WeightFile:
    """A file that the configuration names.

    Attributes:
        path: a safetensors file, or what `torch.save` made of a `state_dict()`.
        key: of the configuration, for messages.
        without: how to do without it, likewise.
    """

    path: Path
    key: str
    without: str

    @classmethod
    def of_encoder(cls, path: str) -> "WeightFile":
        """Of the encoder alone; of a larger file the rest is left."""
        return cls(Path(path), "model.encoder_weights", NONE)

    @classmethod
    def of_network(cls, path: str) -> "WeightFile":
        """Of the whole network."""
        return cls(Path(path), "model.weights", "without model.weights it begins with model.encoder_weights")

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, those of a Lightning checkpoint among them.

        Raises:
            WeightsError: if the file is missing or holds no tensors.
        """
        if self.path.suffix == _SAFETENSORS:
            with self._opened() as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        try:
            content = torch.load(expanded(self.path), map_location="cpu", weights_only=True)
        except OSError as error:
            raise self._unreadable(error) from None
        except Exception as error:  # torch.load raises many kinds for what it refuses
            raise WeightsError(
                f"{self.key}: {self.path} holds other things than tensors, or is damaged ({first_line(error)}); save "
                f"model.state_dict() alone; {self.without}"
            ) from None
        found = content.get("state_dict", content) if isinstance(content, Mapping) else None
        if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
            raise WeightsError(
                f"{self.key}: {self.path} is no state_dict() of a network; of a run of segdistill take its "
                f"primary.safetensors; {self.without}"
            )
        return dict(found)

    def normalisation(self) -> Normalisation | None:
        """What the file's metadata say as `mean` and `std`; None if they do not.

        Raises:
            WeightsError: if they are no three numbers each, or the file cannot be read.
        """
        if self.path.suffix != _SAFETENSORS:
            return None
        with self._opened() as file:
            metadata = file.metadata() or {}
        if not {"mean", "std"} <= metadata.keys():
            return None
        try:
            return Normalisation(_triple(metadata["mean"]), _triple(metadata["std"]))
        except ValueError:
            raise WeightsError(
                f"{self.key}: {self.path} gives mean {metadata['mean']!r} and std {metadata['std']!r} in its "
                "metadata; both should be three numbers, or neither be there"
            ) from None

    def digest(self) -> str:
        """SHA-256 of its bytes. Raises WeightsError if the file cannot be read."""
        try:
            with expanded(self.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._unreadable(error) from None

    def fill_encoder(self, model: SegmentationModel) -> None:
        """Every tensor of the encoder has to be there in its shape, under smp's name or, of a timm encoder, under
        timm's; what else there is stays out.

        Raises:
            WeightsError: naming the first one that is not, or as `tensors` does.
        """
        encoder, tensors = model.encoder, self.tensors()
        of_timm = isinstance(encoder, TimmUniversalEncoder | TimmViTEncoder)
        whose = f"timm's {encoder.name}" if of_timm else "this encoder"
        fill(
            encoder,
            tensors,
            names=_smp_or_timm_names(encoder.name, encoder.state_dict(), tensors) if of_timm else None,
            source=f"{self.key}: {self.path}",
            remedy=f"the file should hold the state_dict() of {whose}; {self.without}",
        )

    def fill_network(self, model: SegmentationModel, *, new_head: bool) -> None:
        """Every tensor of the network has to be there in its shape; with `new_head` its head stays as it is.

        Raises:
            WeightsError: naming the first one that is not, or as `tensors` does.
        """
        parts = {name: part for name, part in model.named_children() if not (new_head and name == _HEAD)}
        fill(
            nn.ModuleDict(parts),
            self.tensors(),
            source=f"{self.key}: {self.path}",
            remedy=f"of other classes it can have all but the head (model.new_head=true); {self.without}",
        )

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with safe_open(expanded(self.path), framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> WeightsError:
        return WeightsError(f"{self.key}: cannot read {self.path}: {error}; {self.without}")


def fill(
    part: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    names: Mapping[str, str] | None = None,
    source: str,
    remedy: str,
) -> None:
    """Give a network, or a part of one, its weights, whatever else there is beside them and in front of their names.

    Args:
        part: changed in place, if all of its tensors are there.
        tensors: by `names`, which may all have the same words before them (`encoder.`, `module.`).
        names: what the tensors are called there, by the names of `part.state_dict()`; by default those.
        source: where they are from, for the message.
        remedy: likewise.

    Raises:
        WeightsError: naming the first tensor that is missing or has another shape, or several networks among which
            the file does not choose.
    """
    own = part.state_dict()
    wanted = own if names is None else {names[name]: tensor for name, tensor in own.items()}
    prefix = _common_prefix(wanted, tensors, source=source)
    for key, tensor in wanted.items():
        found = tensors.get(prefix + key)
        if found is None and key.endswith(_COUNTER):
            continue
        if found is None or found.shape != tensor.shape:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise WeightsError(
                f"{source} does not fit the network: tensor {prefix + key!r} {what}, wanted {tuple(tensor.shape)}; "
                f"{remedy}"
            )
    filled = (tensors.get(prefix + key, tensor) for key, tensor in wanted.items())
    part.load_state_dict(dict(zip(own, filled, strict=True)))


def _smp_or_timm_names(model: str, own: Iterable[str], tensors: Iterable[str]) -> dict[str, str]:
    """What the tensors of an smp encoder made of a timm model are called in a file, by smp's names for them: the same,
    unless more of them are found by timm's names."""
    names = {name: name for name in own}
    most = _most_found(names, tensors)
    if most == len(names):
        return names
    of_timm = _timm_names(model, names)
    return of_timm if _most_found(set(of_timm.values()), tensors) > most else names


def _timm_names(model: str, names: Iterable[str]) -> dict[str, str]:
    """What timm calls the tensors of an smp encoder made of one of its models, by smp's names for them.

    smp puts `model.` before them. timm, where it takes the stages out of a model, joins the first two words of some by
    `_` (`stages_0` for `stages.0`), or puts one more `model.` before them.
    """
    with torch.device("meta"):
        whole = timm.create_model(model, pretrained=False).state_dict()
    joined = {name.replace(".", "_"): name for name in whole}
    bare = {name: re.sub(r"^(model\.)+", "", name) for name in names}
    return {name: joined.get(one.replace(".", "_"), one) for name, one in bare.items()}


def _common_prefix(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, source: str) -> str:
    """What stands before most of the names that are wanted.

    Raises:
        WeightsError: if it may be one of several, and their tensors differ: a teacher and a student, or a running
            average beside the network.
    """
    found = _found_behind(own, tensors)
    most = max(found.values(), default=0)
    prefixes = sorted((prefix for prefix, count in found.items() if count == most), key=len)
    fitting = [
        prefix
        for prefix in prefixes
        if all(prefix + key not in tensors or tensors[prefix + key].shape == own[key].shape for key in own)
    ]
    # Of a file of another network the same few names may stand behind many prefixes: those are no networks.
    whole = [
        prefix for prefix in fitting if all(prefix + key in tensors or key.endswith(_COUNTER) for key in own)
    ]
    prefixes = whole or fitting or prefixes
    first = prefixes[0] if prefixes else ""
    others = [
        prefix
        for prefix in whole[1:]
        if not all(_same(tensors.get(first + key), tensors.get(prefix + key)) for key in own)
    ]
    if others:
        raise WeightsError(
            f"{source} holds several networks that differ: {', '.join(repr(prefix) for prefix in (first, *others))} "
            "stand before the names of their tensors; save the one that is meant alone, e.g. "
            f"torch.save({{key.removeprefix({others[0]!r}): tensor for key, tensor in state_dict.items() if "
            f"key.startswith({others[0]!r})}}, FILE)"
        )
    return first


def _found_behind(wanted: Container[str], tensors: Iterable[str]) -> Counter[str]:
    """How many of the names that are wanted stand behind each prefix."""
    found: Counter[str] = Counter()
    for name in tensors:
        words = name.split(".")
        for at in range(len(words)):
            if ".".join(words[at:]) in wanted:
                found["".join(f"{word}." for word in words[:at])] += 1
    return found


def _most_found(wanted: Container[str], tensors: Iterable[str]) -> int:
    return max(_found_behind(wanted, tensors).values(), default=0)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


def normalisation_of_encoder(encoder: str) -> Normalisation:
    """What the ImageNet weights of an encoder expect: timm knows it for its own models and for the ones that smp took
    over with other statistics than ImageNet's."""
    name = encoder.removeprefix("tu-") if encoder.startswith("tu-") else _TIMM_NAMES.get(encoder)
    settings = timm.get_pretrained_cfg(name) if name else None
    return Normalisation(_three(settings.mean), _three(settings.std)) if settings else IMAGENET


def _triple(text: str) -> Triple:
    """`[0.5, 0.5, 0.5]`, as the exporter writes it."""
    return _three([float(part) for part in text.strip("[]()").split(",")])


def _three(values: Sequence[float]) -> Triple:
    first, second, third = values
    return first, second, third
