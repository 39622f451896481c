"""Views of a batch, turned, scaled, recoloured and pasted into each other, with their labels moved along."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.data.loading import Batch
from segdistill.normalisation import Normalisation


@dataclass(frozen=True)
class StrongViews:
    """Makes a view of every image of a batch, on the batch's device, with torch's global random states.

    Sub-models disagree on such images more than on those they learn labels from, so there is more that one can
    teach the other (function matching, Beyer et al., arXiv:2106.05237).

    Attributes:
        normalisation: of the images.
        flip: share of the images that are mirrored.
        rotate: degrees at most, either way.
        scale: smallest and largest; drawn uniformly in its logarithm.
        gamma: brightness v in 0..1 becomes v^g, g between 1 / gamma and gamma, uniform in its logarithm.
        gain: half-range of the factor on each colour.
        paste: share of the images into which two rectangles of another view are pasted, each with sides of a fifth to
            half the image's (CutMix, Yun et al., arXiv:1905.04899). None in a batch of one.
    """

    normalisation: Normalisation
    flip: float
    rotate: float
    scale: tuple[float, float]
    gamma: float
    gain: float
    paste: float

    def __call__(self, batch: Batch, *, ignore_index: int) -> Batch:
        """
        Returns:
            Views (B, 3, H, W), normalised, 0 (the mean colour) where they show nothing that has a label, and their
            labels (B, H, W): the ignore index there.
        """
        moved = self._moved(batch, ignore_index)
        views, labels = self._pasted(Batch(self._recoloured(moved.images), moved.labels))
        return Batch(views * (labels != ignore_index).unsqueeze(1), labels)

    def _moved(self, batch: Batch, ignore_index: int) -> Batch:
        """Mirrored, turned, scaled and shifted; ignored as well where an ignored place is mixed in."""
        count, _, height, width = batch.images.shape
        device = batch.images.device
        angle = _uniform(count, -self.rotate, self.rotate, device) * (math.pi / 180)
        zoom = _log_uniform(count, *self.scale, device)
        mirror = torch.where(_uniform(count, 0, 1, device) < self.flip, -1.0, 1.0)
        cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        slack = (1 - 1 / zoom).abs()  # a larger image fills the view, a smaller one stays inside it
        aspect = height / width  # the grid's axes run from -1 to 1 whatever the sides
        across = [cosine * mirror, -sine * aspect * mirror, _uniform(count, -1, 1, device) * slack]
        down = [sine / aspect, cosine, _uniform(count, -1, 1, device) * slack]
        matrices = torch.stack([torch.stack(across, 1), torch.stack(down, 1)], 1)
        labels = batch.labels.unsqueeze(1)
        both = torch.cat([batch.images, (labels != ignore_index).to(batch.images.dtype)], 1)
        grid = F.affine_grid(matrices, list(both.shape), align_corners=False)
        moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        nearest = F.grid_sample(labels.to(both.dtype), grid, mode="nearest", align_corners=False)
        shown = moved[:, 3] > 0.99
        return Batch(moved[:, :3], torch.where(shown, nearest[:, 0].to(labels.dtype), ignore_index))

    def _recoloured(self, images: Tensor) -> Tensor:
        count, device = len(images), images.device
        mean, std = (
            _per_colour(three, device) for three in (self.normalisation.mean, self.normalisation.std)
        )
        power = _log_uniform(count, 1 / self.gamma, self.gamma, device).view(count, 1, 1, 1)
        factor = _uniform(count * 3, 1 - self.gain, 1 + self.gain, device).view(count, 3, 1, 1)
        colours = (images * std + mean).clamp(0, 1)
        return ((colours**power * factor).clamp(0, 1) - mean) / std

    def _pasted(self, views: Batch) -> Batch:
        """Rectangles stay where they were in the view they come from."""
        count, height, width = views.labels.shape
        if count == 1:
            return views
        images, labels = views.images.clone(), views.labels.clone()
        for place in (torch.rand(count) < self.paste).nonzero().flatten().tolist():
            other = (place + _whole(1, count - 1)) % count
            for _ in range(2):
                rows, columns = _span(height), _span(width)
                images[place, :, rows, columns] = views.images[other, :, rows, columns]
                labels[place, rows, columns] = views.labels[other, rows, columns]
        return Batch(images, labels)


# Numbers for arithmetic on images are drawn where the images are: the host would wait for a copy.


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """(count,) between low and high."""
    return torch.rand(count, device=device) * (high - low) + low


def _log_uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.exp(_uniform(count, math.log(low), math.log(high), device))


def _per_colour(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(1, 3, 1, 1)"""
    return torch.stack([torch.full((), value, device=device) for value in values]).view(1, 3, 1, 1)


def _whole(low: int, high: int) -> int:
    """A whole number from low to high."""
    return int(torch.randint(low, high + 1, ()))


def _span(side: int) -> slice:
    """A fifth to half of a side, anywhere in it."""
    length = _whole(side // 5, side // 2)
    start = _whole(0, side - length)
    return slice(start, start + length)
