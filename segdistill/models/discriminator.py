"""The pixel-wise discriminator that plays against the sub-models."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from segdistill.resolution import upsample


class PixelDiscriminator(nn.Module):
    """Fully convolutional judge of softmax maps: logits for every pixel of the map.

    Spectral norm keeps it Lipschitz (Miyato et al., arXiv:1802.05957); there is no batch norm, because
    real and fake maps would leak into each other through its statistics. It works at half the
    resolution of the map it gets, sees about 30 cells of it each way, and interpolates its verdict back.
    """

    def __init__(self, *, num_classes: int, outputs: int, width: int) -> None:
        """
        Args:
            num_classes: C, channels of the softmax maps.
            outputs: logits per pixel: 1 in the label game, the number of sub-models in the peer game.
            width: channels of its hidden maps.
        """
        super().__init__()

        def block(inputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
            padding = dilation * (kernel - 1) // 2
            conv = nn.Conv2d(inputs, width, kernel, stride, padding, dilation)
            return [spectral_norm(conv), nn.LeakyReLU(0.2, inplace=True)]

        self.layers = nn.Sequential(
            *block(num_classes + 3, 4, stride=2),
            *block(width, 3, dilation=2),
            *block(width, 3, dilation=4),
            spectral_norm(nn.Conv2d(width, outputs, 1)),
        )

    def forward(self, probabilities: Tensor, images: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            probabilities: (N, C, h, w), softmax or one-hot maps.
            images: (N, 3, h, w), the normalised images at the same size.
            valid: (N, h, w) bool. What lies under an ignored cell is hidden, so it neither informs the
                verdict on its neighbours nor gets a gradient from it.

        Returns:
            (N, outputs, h, w) logits.
        """
        seen = torch.cat([probabilities, images], dim=1) * valid.unsqueeze(1)
        return upsample(self.layers(seen), *seen.shape[-2:])
