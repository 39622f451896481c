"""The pixel-wise discriminator."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segdistill.models.discriminator import PixelDiscriminator

CLASSES = 5


def inputs(batch: int = 2, height: int = 24, width: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    probabilities = torch.randn(batch, CLASSES, height, width).softmax(1)
    images = torch.randn(batch, 3, height, width)
    return probabilities, images, torch.ones(batch, height, width, dtype=torch.bool)


def discriminator(outputs: int = 1) -> PixelDiscriminator:
    torch.manual_seed(3)
    return PixelDiscriminator(num_classes=CLASSES, outputs=outputs, width=16)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("size", [(24, 40), (25, 39)])
def test_logits_for_every_cell(outputs: int, size: tuple[int, int]) -> None:
    verdict = discriminator(outputs)(*inputs(3, *size))
    assert verdict.shape == (3, outputs, *size)
    assert verdict.std() > 0


def test_spectral_norm_of_every_convolution() -> None:
    judge = discriminator()
    convolutions = [module for module in judge.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 4

    def largest_singular_values() -> list[float]:
        judge.eval()
        weights = [conv.weight.detach().flatten(1).numpy() for conv in convolutions]
        judge.train()
        return [float(np.linalg.svd(weight, compute_uv=False)[0]) for weight in weights]

    with torch.no_grad():
        for conv in convolutions:  # as an optimiser might leave them
            conv.parametrizations.weight.original.mul_(7.0)
        for _ in range(60):
            judge(*inputs(1, 8, 8))
    assert largest_singular_values() == pytest.approx([1.0] * 4, abs=0.02)


def test_no_normalisation_over_the_batch() -> None:
    judge = discriminator()
    assert not [m for m in judge.modules() if isinstance(m, (nn.modules.batchnorm._NormBase, nn.GroupNorm))]
    probabilities, images, valid = inputs(4)
    judge.eval()  # in training each forward refines the spectral norm
    with torch.no_grad():
        together = judge(probabilities, images, valid)
        alone = torch.cat(
            [judge(probabilities[i : i + 1], images[i : i + 1], valid[i : i + 1]) for i in range(4)]
        )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_hidden_cells_change_nothing_anywhere() -> None:
    judge = discriminator().eval()
    probabilities, images, valid = inputs()
    valid[0, 3:9, 5:17] = False
    valid[1, :, -1] = False
    verdict = judge(probabilities, images, valid)
    hidden = ~valid.unsqueeze(1)
    other_probabilities = torch.where(hidden, torch.rand_like(probabilities), probabilities)
    other_images = torch.where(hidden, 100 * torch.randn_like(images), images)
    assert torch.equal(judge(other_probabilities, other_images, valid), verdict)
    everything = torch.ones_like(valid)
    assert not torch.equal(
        judge(other_probabilities, other_images, everything), judge(probabilities, images, everything)
    )


def test_no_gradient_to_hidden_cells() -> None:
    judge = discriminator()
    probabilities, images, valid = inputs()
    valid[0, 3:9, 5:17] = False
    probabilities.requires_grad_(True)
    judge(probabilities, images, valid).square().sum().backward()
    assert probabilities.grad is not None
    reached = probabilities.grad.abs().sum(1) > 0
    assert not reached[~valid].any()
    assert reached[valid].all()


def test_it_looks_at_the_image_too() -> None:
    judge = discriminator().eval()
    probabilities, images, valid = inputs()
    assert not torch.equal(judge(probabilities, images, valid), judge(probabilities, -images, valid))
