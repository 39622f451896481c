"""What each term asks of the shared encoder: the first thing to look at when a sum of losses loses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

GRADIENT = "encoder_gradient"
COSINE = "encoder_cosine"


def encoder_gradients(
    terms: Mapping[str, Tensor], shared: Sequence[Parameter], *, reference: str
) -> dict[str, Tensor]:
    """Norm of every term's gradient at the shared encoder, and how far it agrees with the reference's.

    It leaves `.grad` and the graph as they are, and costs one backward pass for each term.

    Args:
        terms: name -> weighted scalar with its graph.
        shared: the encoder's parameters.
        reference: the term (the primary's cross-entropy) that the others are compared with, if it is among them.

    Returns:
        `encoder_gradient/<term>` (L2 norm) of all terms and, with the reference, `encoder_cosine/<term>` (-1..1) of
        the others; detached. A term that does not reach the encoder has norm 0 and cosine 0.
    """
    flat = {name: _flat_gradient(value, shared) for name, value in terms.items()}
    norms = {name: gradient.norm() for name, gradient in flat.items()}
    found = {f"{GRADIENT}/{name}": norm for name, norm in norms.items()}
    if reference not in flat:
        return found
    tiny = torch.finfo(flat[reference].dtype).tiny
    cosines = {
        name: gradient @ flat[reference] / (norms[name] * norms[reference]).clamp_min(tiny)
        for name, gradient in flat.items()
        if name != reference
    }
    return found | {f"{COSINE}/{name}": cosine for name, cosine in cosines.items()}


def _flat_gradient(value: Tensor, shared: Sequence[Parameter]) -> Tensor:
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(p).flatten() for p in shared])
    gradients = torch.autograd.grad(value, shared, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if gradient is None else gradient).flatten()
            for gradient, p in zip(gradients, shared, strict=True)
        ]
    )
