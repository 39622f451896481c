"""Gradients at the shared encoder: a linear case by hand."""

import pytest
import torch
from torch.nn import Parameter

from segdistill.training.diagnostics import agreement, encoder_gradients


def test_norms_and_cosines_by_hand() -> None:
    first, second = Parameter(torch.tensor([1.0, 1.0])), Parameter(torch.tensor([[2.0]]))
    elsewhere = Parameter(torch.tensor(5.0))
    terms = {
        "primary": 3 * first[0] + 4 * second.sum(),  # gradient (3, 0, 4)
        "branches": 2 * first[1] * elsewhere,  # (0, 10, 0)
        "logit": -0.5 * (3 * first[0] + 4 * second.sum()),  # (-1.5, 0, -2)
        "feature": first.sum() + second.sum(),  # (1, 1, 1)
        "far": elsewhere * 7,  # none of it in the encoder
        "constant": torch.tensor(2.0),
    }
    found = agreement(encoder_gradients(terms, [first, second]), reference="primary")
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "encoder_gradient/primary": 5.0,
            "encoder_gradient/branches": 10.0,
            "encoder_gradient/logit": 2.5,
            "encoder_gradient/feature": 3**0.5,
            "encoder_gradient/far": 0.0,
            "encoder_gradient/constant": 0.0,
            "encoder_cosine/branches": 0.0,
            "encoder_cosine/logit": -1.0,
            "encoder_cosine/feature": 7 / (5 * 3**0.5),
            "encoder_cosine/far": 0.0,
            "encoder_cosine/constant": 0.0,
        }
    )
    assert first.grad is None
    sum(terms.values(), torch.tensor(0.0)).backward()  # the graph is still there
    torch.testing.assert_close(first.grad, torch.tensor([3 - 1.5 + 1, 10 + 1.0]))
