"""Networks as functions from images to logits, whatever runs them."""

import torch
from torch import Tensor, nn

from segdistill.losses.logit import ensemble_logits
from segdistill.models.multi_branch import MultiBranchNet
from segdistill.resolution import pad_to_multiple, upsample
from segdistill.streams import ENSEMBLE, PRIMARY

#: Stream name -> logits (B, C, H, W) at the image's size.
StreamLogits = dict[str, Tensor]


class PlainPredictor:
    """The deployed network alone."""

    def __init__(self, primary: nn.Module, *, multiple: int, device: torch.device) -> None:
        """
        Args:
            primary: an smp model; it is put into evaluation mode.
            multiple: what height and width are padded to.
            device: where to run.
        """
        self.primary = primary.to(device).eval()
        self.multiple = multiple
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> StreamLogits:
        """images: (B, 3, H, W), normalised."""
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images.to(self.device), self.multiple)
        return {PRIMARY: self.primary(padded)[..., :height, :width]}


class MultiBranchPredictor:
    """Every sub-model and their ensemble, out of one forward pass."""

    def __init__(self, net: MultiBranchNet, *, multiple: int, device: torch.device) -> None:
        self.net = net.to(device)
        self.multiple = multiple
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> StreamLogits:
        """images: (B, 3, H, W), normalised. The network is left in evaluation mode."""
        self.net.eval()
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images.to(self.device), self.multiple)
        out = self.net(padded)
        streams = {PRIMARY: out.primary} | {
            name: upsample(logits, *padded.shape[-2:]) for name, logits in out.branches.items()
        }
        if out.branches:
            streams[ENSEMBLE] = ensemble_logits(list(streams.values()))
        return {name: logits[..., :height, :width] for name, logits in streams.items()}
