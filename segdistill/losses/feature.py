"""The primary learns from the branches' features.

Shapes: D channels, (B, D, *spatial).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.grid import any_valid, pool_valid
from segdistill.losses.reduction import mean_valid

#: A feature shorter than this counts as this long: it bounds the gradient where a dead decoder makes one exactly zero.
_SHORTEST = 1e-4


def cosine_distance(
    features: Tensor, teacher_features: Tensor, target: Tensor, *, ignore_index: int
) -> Tensor:
    """How far each place's feature points away from the teachers'.

        mean_valid (1 - cos(h, h_teacher))

    Args:
        features: (B, D, *spatial), the student's.
        teacher_features: (B, D, *spatial), of all teachers, concatenated; no gradient reaches it.
        target: (B, *spatial) int64; only its ignored places matter here.
        ignore_index: places with this label carry no loss and no gradient.

    Returns:
        Scalar in 0..2; 0, and still differentiable, if nothing is valid.
    """
    cosine = F.cosine_similarity(features, teacher_features.detach(), dim=1, eps=_SHORTEST)
    return mean_valid(1 - cosine, target, ignore_index=ignore_index)


def affinity(features: Tensor, valid: Tensor) -> Tensor:
    """Cosine of every pair of cells of an image: (B, D, h, w), valid (B, h, w) -> (B, h*w, h*w), 0 at invalid."""
    unit = F.normalize(features, dim=1, eps=_SHORTEST).flatten(2) * valid.flatten(1).unsqueeze(1)  # (B, D, N)
    return unit.transpose(1, 2) @ unit


def affinity_distance(
    features: Tensor, teacher_features: Sequence[Tensor], target: Tensor, *, ignore_index: int, pool: int
) -> Tensor:
    """How differently a student and its teachers relate the places of an image to each other.

        mean over pairs (i, j) of valid cells of (a_ij - mean_k a^k_ij)^2
        a_ij = cos(h_i, h_j) on a grid pooled by `pool`      (pair-wise distillation, Liu et al.,
                                                              arXiv:1903.04197, eq. 3)

    Args:
        features: (B, D, h, w), the student's.
        teacher_features: of every teacher, each (B, D', h, w); no gradient reaches them.
        target: (B, h, w) int64; only its ignored places matter here.
        ignore_index: places with this label carry no loss and no gradient.
        pool: cells of the pooled grid are pool x pool places; it divides h and w.

    Returns:
        Scalar in 0..4; 0, and still differentiable, if nothing is valid.
    """
    height, width = (size // pool for size in features.shape[-2:])
    valid = target != ignore_index
    cells = any_valid(valid, pool)  # (B, h', w')

    def affinity_of(maps: Tensor) -> Tensor:
        return affinity(pool_valid(maps, valid, height=height, width=width), cells)

    with torch.no_grad():
        wanted = torch.stack([affinity_of(maps) for maps in teacher_features]).mean(0)
    pairs = (cells.flatten(1).sum(1) ** 2).sum()
    return (affinity_of(features) - wanted).square().sum() / pairs.clamp_min(1)
