"""What the dense losses of one step look at, each made once and only if a loss asks for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.adversarial import real_maps
from segdistill.losses.grid import any_valid, interior_labels, label_votes, majority_labels, pool_valid
from segdistill.losses.logit import ensemble_logits
from segdistill.streams import PRIMARY

#: (maps (N, C, h, w), images (N, 3, h, w), valid (N, h, w)) -> logits (N, outputs, h, w)
Discriminator = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(eq=False)
class StepMaps:
    """Labels, logits and features of one batch at label resolution and on the coarse grid.

    The supervised loss works at label resolution, everything that sub-models learn from each other on
    cells of `grid_stride` x `grid_stride` pixels, sixteen times fewer at stride 4.

    Attributes:
        images: (B, 3, H, W), normalised.
        labels: (B, H, W) int64.
        primary_logits: (B, C, H, W).
        branch_logits: name -> (B, C, H/s, W/s), s dividing the grid's stride.
        features: name -> (B, A, h', w') of every sub-model, all of one size; may be empty.
        ignore_index: labels that carry no loss.
        grid_stride: pixels per cell of the coarse grid.
    """

    images: Tensor
    labels: Tensor
    primary_logits: Tensor
    branch_logits: Mapping[str, Tensor]
    features: Mapping[str, Tensor]
    ignore_index: int
    grid_stride: int
    _votes: dict[int, Tensor] = field(default_factory=dict, init=False)
    _means: dict[tuple[str, ...], Tensor] = field(default_factory=dict, init=False)

    @property
    def grid_size(self) -> tuple[int, int]:
        """(height, width) of the coarse grid."""
        return self.labels.shape[-2] // self.grid_stride, self.labels.shape[-1] // self.grid_stride

    def votes(self, stride: int) -> Tensor:
        """Labels counted on cells of this stride: (B, C, H/stride, W/stride), see `label_votes`."""
        if stride not in self._votes:
            self._votes[stride] = label_votes(
                self.labels,
                stride=stride,
                num_classes=self.primary_logits.shape[1],
                ignore_index=self.ignore_index,
            )
        return self._votes[stride]

    @cached_property
    def grid_labels(self) -> Tensor:
        """The majority label of every cell of the coarse grid: (B, h, w) int64."""
        return majority_labels(self.votes(self.grid_stride), ignore_index=self.ignore_index)

    @cached_property
    def feature_labels(self) -> Tensor:
        """Labels at the features' size, (B, h', w'); features were pooled before the labels were known, so
        only cells without an ignored pixel count."""
        stride = self.labels.shape[-2] // next(iter(self.features.values())).shape[-2]
        return interior_labels(self.votes(stride), stride=stride, ignore_index=self.ignore_index)

    @cached_property
    def grid_logits(self) -> dict[str, Tensor]:
        """Every sub-model's logits on the grid, the primary first: name -> (B, C, h, w)."""
        return {
            name: self._to_grid(logits)
            for name, logits in {PRIMARY: self.primary_logits, **self.branch_logits}.items()
        }

    def mean_logits(self, names: Sequence[str]) -> Tensor:
        """The mean of these sub-models' logits on the grid, without gradient: (B, C, h, w)."""
        key = tuple(names)
        if key not in self._means:
            self._means[key] = ensemble_logits([self.grid_logits[name] for name in key])
        return self._means[key]

    def _to_grid(self, logits: Tensor) -> Tensor:
        """Pool logits over valid pixels. A branch's cells may be coarser than pixels: a cell is valid
        there as soon as one of its pixels is."""
        height, width = self.grid_size
        if logits.shape[-2:] == (height, width):
            return logits
        stride = self.labels.shape[-2] // logits.shape[-2]
        valid = any_valid(self.labels != self.ignore_index, stride)
        return pool_valid(logits, valid, height=height, width=width)

    @cached_property
    def judged(self) -> "JudgedMaps":
        """All sub-models' softmax maps with what a discriminator sees beside them."""
        return JudgedMaps(
            probs=torch.cat(list(self.grid_logits.values())).softmax(1),
            labels=self.grid_labels,
            images=F.avg_pool2d(self.images, self.grid_stride),
            ignore_index=self.ignore_index,
        )


@dataclass(frozen=True)
class JudgedMaps:
    """One batch as a discriminator sees it, on the coarse grid.

    Attributes:
        probs: softmax maps of all sub-models, the primary's first: ((K+1) * B, C, h, w).
        labels: (B, h, w) int64.
        images: (B, 3, h, w), normalised.
        ignore_index: labels where nothing is judged.
    """

    probs: Tensor
    labels: Tensor
    images: Tensor
    ignore_index: int

    @property
    def targets(self) -> Tensor:
        """The labels once for each sub-model: ((K+1) * B, h, w)."""
        return self.labels.repeat(len(self.probs) // len(self.labels), 1, 1)

    def detached(self) -> "JudgedMaps":
        """The same numbers, without the graph and all the maps that it keeps in memory."""
        return replace(self, probs=self.probs.detach())

    def judge(self, discriminator: Discriminator, probs: Tensor) -> Tensor:
        """Run maps (n * B, C, h, w) through the discriminator, each beside its image."""
        copies = len(probs) // len(self.images)
        valid = (self.labels != self.ignore_index).repeat(copies, 1, 1)
        return discriminator(probs, self.images.repeat(copies, 1, 1, 1), valid)

    def real_probs(self, *, smoothing: float) -> Tensor:
        """Ground truth as maps: (B, C, h, w)."""
        return real_maps(
            self.labels, num_classes=self.probs.shape[1], ignore_index=self.ignore_index, smoothing=smoothing
        )
