"""Whole images, sliding windows, scales and mirrors, with networks that show where they look."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.data.transforms import EvalTransform
from segdistill.evaluation.looking import View, Viewer, Window, slide, starts, taper
from segdistill.normalisation import Normalisation

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)


def predictor(network: nn.Module) -> object:
    return lambda images: {"primary": network(images), "other": -network(images)}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def look(network: nn.Module, view: View, image: np.ndarray) -> dict[str, Tensor]:
    viewer = Viewer(predictor(network), view, normalisation=NORMALISATION)
    return dict(viewer(image, *image.shape[:2]))


def prepared(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    pixels = EvalTransform(size=size, normalisation=NORMALISATION)(image)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]


@pytest.mark.parametrize("window", [(12, 16), (12, 20), (40, 40)])
def test_a_window_over_the_whole_image_is_the_whole_image_to_the_bit(window: tuple[int, int]) -> None:
    network, image = convolution(), picture(25, 30)
    whole = look(network, View((12, 16)), image)
    slid = look(network, View((12, 16), Window(window, (3, 3))), image)
    assert list(whole) == list(slid) == ["primary", "other"]
    assert all(torch.equal(whole[name], slid[name]) for name in whole)
    expected = F.interpolate(network(prepared(image, (12, 16))), (25, 30), mode="bilinear")
    assert torch.equal(whole["primary"], expected)


@pytest.mark.parametrize("stride", [(5, 4), (2, 7), (1, 1)])
def test_windows_of_a_pointwise_network_agree_with_the_whole_image(stride: tuple[int, int]) -> None:
    """It does not see its surroundings, so every average is of equal values, and each pixel has to be covered."""
    torch.manual_seed(0)
    pointwise = nn.Conv2d(3, 4, 1).requires_grad_(False)
    pixels = torch.randn(1, 3, 13, 17)
    slid = slide(predictor(pointwise), pixels, Window((5, 7), stride))
    torch.testing.assert_close(slid["primary"], pointwise(pixels))


def test_overlaps_are_blended_with_the_taper_by_hand() -> None:
    """Windows of 4 at 0, 2 and 3 over 7 pixels; each says how many windows there were before it."""
    calls: list[tuple[int, ...]] = []

    def predict(images: Tensor) -> dict[str, Tensor]:
        calls.append(tuple(images.shape))
        return {"primary": torch.full((1, 1, *images.shape[-2:]), float(len(calls) - 1))}

    found = slide(predict, torch.zeros(1, 3, 1, 7), Window((1, 4), (1, 2)))["primary"]
    assert calls == [(1, 3, 1, 4)] * 3
    assert taper(4).tolist() == [0.5, 1.0, 1.0, 0.5]
    expected = [0, 0, 0.5 / 1.5, (1 + 2 * 0.5) / 2, (1 + 2) / 2, (0.5 + 2) / 1.5, 2]
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (10, 4, 2, [0, 2, 4, 6]),
        (10, 4, 3, [0, 3, 6]),
        (10, 4, 4, [0, 4, 6]),
        (4, 4, 1, [0]),
        (5, 4, 4, [0, 1]),
    ],
)
def test_the_last_window_is_shifted_inward(
    length: int, window: int, stride: int, expected: list[int]
) -> None:
    assert starts(length, window, stride) == expected
    covered = {pixel for start in expected for pixel in range(start, start + window)}
    assert covered == set(range(length))


def test_a_window_may_not_leave_pixels_out() -> None:
    with pytest.raises(AssertionError, match="checked"):
        Window((4, 4), (5, 4))


def test_scales_and_mirrors_average_probabilities_at_the_labels_size() -> None:
    network, image = convolution(), picture(25, 30)
    view = View((12, 16), scales=(0.5, 1.0, 1.5), flip=True)
    passes = []
    for size in [(6, 8), (12, 16), (18, 24)]:
        pixels = prepared(image, size)
        for seen in (network(pixels), network(pixels.flip(-1)).flip(-1)):
            passes.append(F.interpolate(seen, (25, 30), mode="bilinear").softmax(1))
    expected = torch.stack(passes).mean(0)
    found = look(network, view, image)["primary"]
    torch.testing.assert_close(found.softmax(1), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert not torch.equal(found.argmax(1), look(network, View((12, 16)), image)["primary"].argmax(1))


def test_a_mirrored_network_sees_no_difference_between_left_and_right() -> None:
    """With a symmetric image both halves have to come out mirrored, though the network looks to the left."""
    half = picture(8, 8)
    image = np.concatenate([half, half[:, ::-1]], 1)
    found = look(convolution(), View((8, 16), flip=True), image)["primary"]
    torch.testing.assert_close(found, found.flip(-1))
    plain = look(convolution(), View((8, 16)), image)["primary"]
    assert not torch.allclose(plain, plain.flip(-1), atol=0.01)


def test_a_window_slides_over_every_scale() -> None:
    sizes: list[tuple[int, ...]] = []

    def predict(images: Tensor) -> dict[str, Tensor]:
        sizes.append(tuple(images.shape[-2:]))
        return {"primary": images}

    view = View((8, 8), Window((6, 6), (6, 6)), scales=(0.5, 1.0), flip=True)
    list(Viewer(predict, view, normalisation=NORMALISATION)(picture(9, 9), 9, 9))
    assert sizes == [(4, 4)] * 2 + [(6, 6)] * 8


def test_a_view_says_what_it_is() -> None:
    assert (View((8, 8)).mode, View((8, 8)).augmentation) == ("whole image", None)
    view = View((8, 8), Window((6, 4), (3, 2)), scales=(0.75, 1.0), flip=True)
    assert view.mode == "sliding window 6x4, stride 3x2, logits blended with a linear taper"
    over = View((8, 8), Window((9, 8), (4, 4)))
    assert over.mode == "whole image"
    assert View((8, 8), over.window, scales=(1.0, 1.5)).mode.startswith("sliding window 9x8")
    assert View((8, 8), Window((9, 4), (4, 4))).mode.startswith("sliding window 8x4"), (
        "what is really cut out"
    )
    assert view.augmentation == "scales 0.75 1, each also mirrored; softmax averaged at label size"
    assert (view.seen_at(1.0), view.seen_at(0.5)) == ((6, 4), (4, 4))
