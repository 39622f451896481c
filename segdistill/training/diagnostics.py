"""What each term asks of the shared encoder: the first thing to look at when a sum of losses loses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

GRADIENT = "encoder_gradient"
COSINE = "encoder_cosine"


def encoder_gradients(terms: Mapping[str, Tensor], shared: Sequence[Parameter]) -> dict[str, Tensor]:
    """Every term's gradient at the shared encoder.

    It leaves `.grad` and the graph as they are, and costs one backward pass for each term.

    Args:
        terms: name -> weighted scalar with its graph.
        shared: the encoder's parameters, N numbers in all.

    Returns:
        name -> gradient (N,); zeros for a term that does not reach the encoder.
    """
    return {name: _flat_gradient(value, shared) for name, value in terms.items()}


def agreement(gradients: Mapping[str, Tensor], *, reference: str) -> dict[str, Tensor]:
    """How much every term asks for, and how far it agrees with the reference.

    Args:
        gradients: name -> gradient (N,), be it of one look at the network or of several.
        reference: the term (the primary's supervised loss) that the others are compared with.

    Returns:
        `encoder_gradient/<term>` (L2 norm) of all terms and `encoder_cosine/<term>` (-1..1) of all but the
        reference; a gradient of zeros has norm 0 and cosine 0.
    """
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    wanted = gradients[reference]
    tiny = torch.finfo(wanted.dtype).tiny
    cosines = {
        name: gradient @ wanted / (norms[name] * norms[reference]).clamp_min(tiny)
        for name, gradient in gradients.items()
        if name != reference
    }
    return {f"{GRADIENT}/{name}": norm for name, norm in norms.items()} | {
        f"{COSINE}/{name}": cosine for name, cosine in cosines.items()
    }


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
