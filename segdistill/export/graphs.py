"""What is exported: a network with the work before and after it that the user wants inside the file."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.export.description import Fit, Layout
from segdistill.models.multi_branch import MultiBranchNet
from segdistill.normalisation import Normalisation
from segdistill.resolution import upsample


class BranchStream(nn.Module):
    """One branch as a network of its own: the encoder up to its tap, and its decoder.

    Run as it is it computes every sub-model; an exported graph keeps only what leads to its output.
    """

    def __init__(self, net: MultiBranchNet, name: str) -> None:
        """
        Args:
            net: the trained network.
            name: one of `net.branches`.
        """
        super().__init__()
        self.net = net
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, C, H, W) logits"""
        return upsample(self.net(images).branches[self.name], *images.shape[-2:])


class TensorGraph(nn.Module):
    """Normalised images of any size in, logits of that size out: pad to the stride, predict, crop."""

    def __init__(self, network: nn.Module, *, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def logits(self, normalized_image: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, C, H, W)"""
        return self(normalized_image)

    def forward(self, normalized_image: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, C, H, W) logits"""
        height, width = normalized_image.shape[-2:]
        rows = (height + self.stride - 1) // self.stride * self.stride
        columns = (width + self.stride - 1) // self.stride * self.stride
        padded = F.pad(normalized_image, (0, columns - width, 0, rows - height))
        return self.network(padded)[..., :height, :width]


class ImageGraph(nn.Module):
    """Decoded images of any size in, class indexes of that size out."""

    mean: Tensor  # on the 0..255 scale: (3, 1, 1), or a scalar if all channels have the same
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        normalisation: Normalisation,
        stride: int,
        size: tuple[int, int],
        fit: Fit,
        layout: Layout,
        confidence: bool,
    ) -> None:
        """
        Args:
            network: (B, 3, h, w) normalised -> (B, C, h, w) logits, h and w multiples of `stride`.
            normalisation: of its input.
            stride: in pixels.
            size: (height, width) in pixels that `resize` brings images to.
            fit: `resize` to that size and back, or `pad` to the stride and crop.
            layout: order of the input's axes.
            confidence: also give the softmax of the class that was chosen.
        """
        super().__init__()
        self.core = TensorGraph(network, stride=stride)
        self.size = size
        self.fit = fit
        self.layout = layout
        self.confidence = confidence
        self.register_buffer("mean", _by_channel(normalisation.mean))
        self.register_buffer("std", _by_channel(normalisation.std))

    def logits(self, rgb_image: Tensor) -> Tensor:
        """(B, H, W, 3) or (B, 3, H, W) uint8 -> (B, C, H, W)"""
        image = (rgb_image.permute(0, 3, 1, 2) if self.layout == "nhwc" else rgb_image).float()
        height, width = image.shape[-2:]
        if self.fit == "resize":
            image = resized_as_scored(image, self.size)
        logits = self.core((image - self.mean) / self.std)
        if self.fit == "resize":
            logits = F.interpolate(logits, size=(height, width), mode="bilinear")
        return logits

    def forward(self, rgb_image: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) or (B, 3, H, W) uint8 -> (B, H, W) uint8 class indexes[, (B, H, W) float32 in 0..1]"""
        logits = self.logits(rgb_image)
        classes = logits.argmax(1).to(torch.uint8)
        if not self.confidence:
            return (classes,)
        # The largest softmax; ONNX Runtime's own Softmax over channels takes as long as a small network.
        return classes, 1 / (logits - logits.amax(1, keepdim=True)).exp().sum(1)


def _by_channel(values: tuple[float, float, float]) -> Tensor:
    """On the 0..255 scale, for (B, 3, H, W); runtimes are faster with one number than with three."""
    scaled = 255 * torch.tensor(values)
    return scaled[0] if len(set(values)) == 1 else scaled[:, None, None]


def resized_as_scored(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as OpenCV does for training and scoring, but for its rounding: area average down, bilinear up.

    ONNX's own antialiased Resize is a triangle filter, twice as wide as that average: at 96x128 a network lost 0.7
    points of mIoU by it.

    Args:
        image: (B, 3, H, W) float32.
        size: (height, width) in pixels.

    Returns:
        (B, 3, height, width)
    """
    batch, channels, _, width = image.shape
    rows, weights = _taps(image.shape[-2], size[0])
    picked = image.index_select(2, rows.flatten()).reshape(batch, channels, *rows.shape, width)
    image = (picked * weights[..., None]).sum(3)
    columns, weights = _taps(width, size[1])
    picked = image.index_select(3, columns.flatten()).reshape(batch, channels, size[0], *columns.shape)
    return (picked * weights).sum(4)


def _taps(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Which of `source` places along an axis each of `target` places takes, and with which weight.

    Whole numbers keep it exact; `source` may be known only when the graph runs, so both ways are computed.

    Returns:
        (target, taps) int64 places, and float32 weights that sum to 1 along the taps.
    """
    places = torch.arange(target)[:, None]
    start, end = (
        places * source,
        (places + 1) * source,
    )  # what a place covers, in 1 / target of a source place
    centre = ((2 * places + 1) * source - target).clamp(0, 2 * target * (source - 1))  # in 1 / (2 * target)
    shrinks = torch.arange(source).amax(0) >= target
    first = torch.where(shrinks, start // target, centre // (2 * target))
    taken = first + torch.arange((source + target - 1) // target + 1)
    area = (torch.minimum(end, (taken + 1) * target) - torch.maximum(start, taken * target)).clamp(0) / source
    linear = (2 * target - (centre - 2 * target * taken).abs()).clamp(0) / (2 * target)
    return taken.clamp(max=source - 1), torch.where(shrinks, area, linear)
