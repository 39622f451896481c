"""What is put around a network before it is exported."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from networks import NORMALISATION
from torch import Tensor, nn

from segdistill.data.transforms import EvalTransform
from segdistill.export.graphs import ImageGraph, TensorGraph, resized_as_scored
from segdistill.normalisation import Normalisation


class Doubles(nn.Module):
    """Notes what it is given; its output depends on the place."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return 2 * image


@pytest.mark.parametrize(
    ("size", "padded"), [((33, 40), (64, 64)), ((64, 32), (64, 32)), ((1, 65), (32, 96))]
)
def test_graph_pads_with_the_mean_colour_and_crops(size: tuple[int, int], padded: tuple[int, int]) -> None:
    network = Doubles()
    images = torch.randn(2, 3, *size)
    assert torch.equal(TensorGraph(network, stride=32)(images), 2 * images)
    assert network.seen.shape == (2, 3, *padded)
    assert torch.equal(network.seen[..., : size[0], : size[1]], images)
    assert network.seen.count_nonzero() == images.count_nonzero(), "nothing but zeros around it"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_an_image_is_normalised_as_in_training(layout: Any) -> None:
    network = Doubles()
    graph = ImageGraph(
        network,
        normalisation=NORMALISATION,
        stride=32,
        size=(32, 64),
        fit="pad",
        layout=layout,
        confidence=True,
    )
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8)
    image = pixel.expand(1, 32, 64, 3)
    classes, confidence = graph(image if layout == "nhwc" else image.permute(0, 3, 1, 2))
    # mean (0.5, 0.4, 0.3), std (0.25, 0.5, 0.75): (1 - 0.5) / 0.25 = 2, -0.4 / 0.5 = -0.8, (0.2 - 0.3) / 0.75
    by_hand = torch.tensor([2.0, -0.8, -0.1333333])
    torch.testing.assert_close(network.seen[0, :, 5, 7], by_hand)
    assert classes.shape == confidence.shape == (1, 32, 64)
    assert classes.dtype == torch.uint8
    assert classes.unique().tolist() == [0]
    torch.testing.assert_close(confidence[0, 0, 0], (2 * by_hand).softmax(0)[0])


def test_resizing_goes_to_the_trained_size_and_back() -> None:
    network = Doubles()
    graph = ImageGraph(
        network,
        normalisation=NORMALISATION,
        stride=32,
        size=(32, 64),
        fit="resize",
        layout="nhwc",
        confidence=False,
    )
    image = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    image[:, :, 64:] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    (classes,) = graph(image)
    assert network.seen.shape == (2, 3, 32, 64)
    assert classes.shape == (2, 96, 128)
    # Black normalises to (-2, -0.8, -0.4), class 2; red to (2, -0.8, -0.4), class 0.
    assert classes[:, :, :62].unique().tolist() == [2]
    assert classes[:, :, 66:].unique().tolist() == [0]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((36, 48), (9, 12)),  # four by four to one
        ((37, 50), (16, 22)),
        ((48, 33), (32, 32)),
        ((36, 33), (9, 66)),  # lower and wider: no way of OpenCV's does both
        ((13, 50), (32, 20)),
        ((10, 13), (32, 40)),
        ((1, 1), (8, 9)),
        ((9, 12), (9, 12)),
    ],
)
def test_images_are_resized_as_for_training_and_scoring(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    ours = resized_as_scored(torch.from_numpy(image).permute(2, 0, 1)[None].float(), target)[0].permute(
        1, 2, 0
    )
    transform = EvalTransform(size=target, normalisation=Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    # OpenCV rounds to bytes, twice where one axis shrinks and one grows, and interpolates with weights of 11 bits.
    np.testing.assert_allclose(ours.numpy(), 255 * transform(image), atol=1.25)
    smaller = tuple(map(min, source, target))
    averaged = cv2.resize(image.astype(np.float32), smaller[::-1], interpolation=cv2.INTER_AREA)
    in_floats = cv2.resize(averaged, target[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours.numpy(), in_floats, atol=1e-3)


def test_one_number_for_all_channels_is_the_same() -> None:
    def normalised(mean: tuple[float, float, float]) -> Tensor:
        network = Doubles()
        graph = ImageGraph(
            network,
            normalisation=Normalisation(mean, (0.5, 0.5, 0.5)),
            stride=32,
            size=(32, 32),
            fit="pad",
            layout="nhwc",
            confidence=False,
        )
        graph(torch.arange(256, dtype=torch.uint8).repeat(12).reshape(1, 32, 32, 3))
        return network.seen

    same, almost = normalised((0.5, 0.5, 0.5)), normalised((0.5, 0.5, 0.5 + 1e-7))
    torch.testing.assert_close(same, almost)
    assert same.min() == -1
    assert same.max() == 1
