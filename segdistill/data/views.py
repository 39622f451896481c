"""Views of a batch for which there are no labels: turned, scaled, recoloured and pasted into each other."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.data.loading import Batch
from segdistill.data.transforms import Normalisation


@dataclass(frozen=True)
class StrongViews:
    """Makes a view of every image of a batch, on the batch's device, with the global random state of the CPU.

    Sub-models that agree on training images need not agree on others, and what one of them could teach the other
    shows only there. Views are such others (function matching, Beyer et al., arXiv:2106.05237).

    Attributes:
        normalisation: of the images.
        rotate: degrees at most, either way.
        scale: smallest and largest; drawn uniformly in its logarithm.
        gamma: brightness v in 0..1 becomes v^g, g between 1 / gamma and gamma, uniform in its logarithm.
        gain: half-range of the factor on each colour.
        paste: share of the images into which two rectangles of another view are pasted, each with sides of a fifth to
            half the image's (CutMix, Yun et al., arXiv:1905.04899, without its labels).
    """

    normalisation: Normalisation
    rotate: float
    scale: tuple[float, float]
    gamma: float
    gain: float
    paste: float

    def __call__(self, batch: Batch, *, ignore_index: int) -> Batch:
        """
        Returns:
            Views (B, 3, H, W), normalised, 0 where they show nothing of an image. Their labels (B, H, W) say only that:
            the ignore index there, 0 elsewhere.
        """
        views, shown = self._moved(batch.images)
        views = self._recoloured(views)
        views, shown = self._pasted(views, shown)
        views = (views * shown.unsqueeze(1)).contiguous(memory_format=_format_of(batch.images))
        return Batch(views, torch.where(shown, 0, ignore_index))

    def _moved(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Flipped in half of the cases, turned, scaled and shifted; and where they show something of an image."""
        count, _, height, width = images.shape
        angle = _uniform(count, -self.rotate, self.rotate) * (math.pi / 180)
        zoom = _log_uniform(count, *self.scale)
        flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
        cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        slack = (1 - 1 / zoom).abs()
        aspect = height / width  # the grid's axes run from -1 to 1 whatever the sides
        across = [cosine * flip, -sine * aspect * flip, _uniform(count, -1, 1) * slack]
        down = [sine / aspect, cosine, _uniform(count, -1, 1) * slack]
        matrices = torch.stack([torch.stack(across, 1), torch.stack(down, 1)], 1).to(images.device)
        with_mask = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        grid = F.affine_grid(matrices, list(with_mask.shape), align_corners=False)
        moved = F.grid_sample(with_mask, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved[:, :3], moved[:, 3] > 0.99

    def _recoloured(self, images: Tensor) -> Tensor:
        mean = images.new_tensor(self.normalisation.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.normalisation.std).view(1, 3, 1, 1)
        count = len(images)
        power = _log_uniform(count, 1 / self.gamma, self.gamma).view(count, 1, 1, 1).to(images)
        factor = _uniform(count * 3, 1 - self.gain, 1 + self.gain).view(count, 3, 1, 1).to(images)
        colours = (images * std + mean).clamp(0, 1)
        return ((colours**power * factor).clamp(0, 1) - mean) / std

    def _pasted(self, views: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Rectangles stay where they were in the view they come from."""
        count, _, height, width = views.shape
        others = torch.randperm(count)
        mixed, mixed_shown = views.clone(), shown.clone()
        for place in (torch.rand(count) < self.paste).nonzero().flatten().tolist():
            other = int(others[place])
            for _ in range(2):
                rows, columns = _span(height), _span(width)
                mixed[place, :, rows, columns] = views[other, :, rows, columns]
                mixed_shown[place, rows, columns] = shown[other, rows, columns]
        return mixed, mixed_shown


def _uniform(count: int, low: float, high: float) -> Tensor:
    """(count,) between low and high."""
    return torch.rand(count) * (high - low) + low


def _log_uniform(count: int, low: float, high: float) -> Tensor:
    return torch.exp(_uniform(count, math.log(low), math.log(high)))


def _span(side: int) -> slice:
    """A fifth to half of a side, anywhere in it."""
    length = int(_uniform(1, side / 5, side / 2))
    start = int(_uniform(1, 0, side - length))
    return slice(start, start + length)


def _format_of(images: Tensor) -> torch.memory_format:
    return (
        torch.channels_last
        if images.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )
