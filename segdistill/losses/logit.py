"""Learning from each other's logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.reduction import mean_valid


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """The ensemble's logits: the mean of the sub-models', without gradient. All (B, C, *spatial)."""
    return torch.stack([one.detach() for one in logits]).mean(0)


def logit_distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    ignore_index: int,
    gate: Tensor | None = None,
) -> Tensor:
    """KL divergence from the teacher (the ensemble, usually) to one sub-model, per valid place.

        T^2 * mean_valid gate * sum_c p_c (log p_c - log q_c)
        p = softmax(teacher / T), q = softmax(logits / T)

    T^2 keeps gradients comparable across T (Hinton et al., arXiv:1503.02531, sec. 2).

    Args:
        logits: (B, C, *spatial), a sub-model's, unnormalised.
        teacher_logits: (B, C, *spatial); no gradient reaches it.
        target: (B, *spatial) int64; only its ignored places matter here.
        temperature: T > 0, dimensionless.
        ignore_index: places with this label carry no loss and no gradient.
        gate: (B, *spatial) bool; places where it is false count as 0 in the mean.

    Returns:
        Scalar in nats; 0, and still differentiable, if nothing is valid.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(logits / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1)  # (B, *spatial)
    if gate is not None:
        divergence = divergence.masked_fill(~gate, 0.0)
    return temperature**2 * mean_valid(divergence, target, ignore_index=ignore_index)


def teacher_is_right(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Where the teacher's most likely class is the label: (B, C, *spatial), (B, *spatial) -> bool."""
    return teacher_logits.argmax(1) == target
