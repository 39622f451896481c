"""Images of any size to masks, against a plain computation in torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import NORMALISATION
from tiny_models import convolution, write_onnx
from torch import Tensor, nn

from segdistill.evaluation.predictors import PlainPredictor
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.segmenter import Segmenter, TorchSegmenter
from segdistill.resolution import resized_argmax

SIZE = (37, 50)


def plain_logits(network: nn.Module, image: np.ndarray) -> Tensor:
    """(2 * 37, 2 * 50, 3) -> (1, 3, 2 * 37, 2 * 50): halved, normalised, padded to 64x64, and all of it back."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    halved = (F.avg_pool2d(pixels, 2) + 0.5).floor()
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (NORMALISATION.mean, NORMALISATION.std))
    padded = F.pad((halved / 255 - mean) / std, (0, 64 - SIZE[1], 0, 64 - SIZE[0]))
    logits = network(padded)[..., : SIZE[0], : SIZE[1]]
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def torch_segmenter(network: nn.Module) -> TorchSegmenter:
    predictor = PlainPredictor(network, multiple=32, device=torch.device("cpu"))
    return TorchSegmenter(predictor, stream="primary", size=SIZE, normalisation=NORMALISATION)


@pytest.fixture(params=["torch", "onnx"])
def segmenter(request: pytest.FixtureRequest, tmp_path: Path) -> Segmenter:
    if request.param == "torch":
        return torch_segmenter(convolution())
    return OnnxFile(write_onnx(tmp_path / "tiny.onnx", convolution(), size=SIZE))


def test_agrees_with_a_plain_computation(segmenter: Segmenter) -> None:
    image = noise(2 * SIZE[0], 2 * SIZE[1])
    logits = plain_logits(convolution(), image)[0]
    best = logits.sort(0, descending=True)
    clear = (best.values[0] - best.values[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    classes = segmenter.predict(image).classes
    assert classes.dtype == np.uint8
    assert set(np.unique(classes)) == {0, 1, 2}
    assert np.array_equal(classes[clear], best.indices[0].numpy()[clear])


@pytest.mark.parametrize("size", [(1, 1), (3, 7), SIZE, (51, 36), (5, 400), (700, 33)])
def test_the_mask_has_the_images_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    assert segmenter.predict(noise(*size)).classes.shape == size


def test_the_stream_asked_for_is_the_one_that_answers() -> None:
    first, second = (torch.eye(2)[index].view(1, 2, 1, 1).expand(1, 2, 4, 6) for index in range(2))

    def predictor(images: Tensor) -> dict[str, Tensor]:
        assert images.shape == (1, 3, 4, 6)
        assert torch.is_inference_mode_enabled()
        return {"primary": first, "branch3": second}

    for stream, expected in (("primary", 0), ("branch3", 1)):
        segmenter = TorchSegmenter(predictor, stream=stream, size=(4, 6), normalisation=NORMALISATION)
        assert (segmenter.predict(noise(9, 5)).classes == expected).all()


@pytest.mark.parametrize("size", [(24, 31), (97, 131), (13, 8)])
def test_one_class_at_a_time_is_the_argmax_of_all(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 256, 24, 31)
    at_once = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)[0]
    assert torch.equal(resized_argmax(logits, *size).long(), at_once)


def test_of_equal_logits_the_lowest_class_wins() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 2.0]).view(1, 4, 1, 1)
    assert (resized_argmax(logits, 5, 4) == 1).all()
