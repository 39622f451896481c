"""Reading feature maps out of a plain network."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from segdistill.models.taps import Captured, MapInfo, capture, decoder_map_path, read_captured, survey

PATHS = ("decoder.blocks.1", "encoder.layer2")


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return smp.create_model(
        "unet", "resnet18", encoder_weights=None, classes=4, decoder_channels=[32, 16, 16, 8, 8]
    ).eval()


def hook_count(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_survey_of_a_known_network(unet: nn.Module) -> None:
    tap_map = survey(unet, PATHS, height=64, width=96)
    assert tap_map.encoder == tuple(
        MapInfo(channels, stride) for channels, stride in [(64, 2), (64, 4), (128, 8), (256, 16), (512, 32)]
    )
    assert tap_map.modules == {"decoder.blocks.1": MapInfo(16, 8), "encoder.layer2": MapInfo(128, 8)}


def test_survey_of_a_transformer() -> None:
    dpt = smp.create_model(
        "dpt",
        "tu-vit_tiny_patch16_224",
        encoder_weights=None,
        classes=4,
        dynamic_img_size=True,
        decoder_intermediate_channels=[8, 16, 32, 32],
        decoder_fusion_channels=16,
    )
    tap_map = survey(dpt, (), height=64, width=96)
    assert tap_map.encoder == (MapInfo(192, 16),) * 4


def test_depths_are_octaves_also_where_the_encoder_begins_at_full_size() -> None:
    net = smp.create_model("unet", "vgg11_bn", encoder_weights=None, classes=4)
    assert [info.stride for info in survey(net, (), height=64, width=64).encoder] == [2, 4, 8, 16, 32]


def test_depths_are_octaves_also_where_maps_are_rounded_up() -> None:
    """MobileViT's last maps are made of whole windows of 2x2: 4x4 of 96x128, where 3x4 would do."""
    net = smp.create_model("unet", "tu-mobilevitv2_050", encoder_weights=None, classes=4)
    assert [info.stride for info in survey(net, (), height=96, width=128).encoder] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("shape", [(8, 12, 48), (8, 1, 6), (8, 128, 192)])
def test_what_is_no_map_of_the_image_cannot_be_tapped(shape: tuple[int, int, int]) -> None:
    """Channels at the end, as in Swin's stages; pooled to one row; finer than the image."""

    class Odd(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.new_zeros(len(maps), *shape)

    class OnTheSide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Odd()

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            self.odd(maps)
            return maps

    net = smp.create_model("unet", "resnet18", encoder_weights=None, classes=4)
    net.segmentation_head = nn.Sequential(net.segmentation_head, OnTheSide())
    path = "segmentation_head.1.odd"
    with pytest.raises(
        ValueError, match=rf"'{path}' has the shape .* for an image of 64x96, which is no map"
    ):
        survey(net, (path,), height=64, width=96)


def test_a_pooling_to_a_fixed_size_is_no_map_of_the_decoder() -> None:
    net = smp.create_model("pspnet", "resnet18", encoder_weights=None, classes=4)
    assert decoder_map_path(net, stride=4, height=32, width=32) == "decoder"


def test_survey_of_an_encoder_without_a_stage() -> None:
    net = smp.create_model("unet", "mit_b0", encoder_weights=None, classes=4)
    assert [info.channels for info in survey(net, (), height=64, width=64).encoder] == [0, 32, 64, 160, 256]


@pytest.mark.parametrize("training", [True, False])
def test_survey_leaves_no_trace(unet: nn.Module, training: bool) -> None:
    unet.train(training)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    torch.manual_seed(5)
    random_state = torch.get_rng_state()
    survey(unet, PATHS, height=64, width=64)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert unet.training is training
    assert all(module.training is training for module in unet.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
    assert hook_count(unet) == 0
    unet.eval()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("decoder.blocks.7", r"there is no module 'decoder\.blocks\.7' in the primary stream"),
        ("encoder", r"the output of module 'encoder' is not a 4-D tensor"),
        ("encoder.layer2.0.downsample.9", "there is no module"),
    ],
)
def test_survey_of_what_cannot_be_tapped(unet: nn.Module, path: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        survey(unet, (path,), height=64, width=64)
    assert hook_count(unet) == 0


DECODER_MAPS = {
    "unet": (4, "decoder.blocks.2", MapInfo(16, 4)),
    "unet, finer than asked for": (64, "decoder.center", MapInfo(512, 32)),
    "fpn": (4, "decoder", MapInfo(128, 4)),
    "pspnet": (4, "decoder", MapInfo(512, 8)),  # coarser than asked for
    "deeplabv3plus": (4, "decoder", MapInfo(256, 4)),
}


@pytest.mark.parametrize("case", DECODER_MAPS)
def test_the_decoders_last_map_of_a_stride(case: str, unet: nn.Module) -> None:
    stride, path, info = DECODER_MAPS[case]
    arch = case.split(",")[0]
    net = unet if arch == "unet" else smp.create_model(arch, "resnet18", encoder_weights=None, classes=4)
    assert decoder_map_path(net, stride=stride, height=64, width=96) == path
    assert survey(net, (path,), height=64, width=96).modules[path] == info


def test_module_that_is_never_run_cannot_be_tapped() -> None:
    # PSPNet looks at three stages of its encoder and holds all of them.
    pspnet = smp.create_model("pspnet", "resnet18", encoder_weights=None, classes=4)
    with pytest.raises(ValueError, match=r"'encoder\.layer4' is not a 4-D tensor"):
        survey(pspnet, ("encoder.layer4",), height=64, width=64)


def test_capture_sees_what_the_modules_give(unet: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 32)
    with capture(unet, PATHS) as seen, torch.no_grad():
        logits = unet(images)
    captured = read_captured(seen)
    with torch.no_grad():
        features = unet.encoder(images)
        assert torch.equal(features[0], images)
        assert len(captured.encoder) == 5
        for ours, theirs in zip(captured.encoder, features[1:], strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(captured.modules["encoder.layer2"], features[3])
        assert torch.equal(logits, unet(images))
    assert captured.modules["decoder.blocks.1"].shape == (2, 16, 8, 4)


def test_hooks_are_there_only_inside_the_block(unet: nn.Module) -> None:
    assert hook_count(unet) == 0
    with capture(unet, PATHS):
        assert hook_count(unet) == 3
    assert hook_count(unet) == 0

    def fail() -> None:
        with capture(unet, PATHS):
            raise KeyError("on the way")

    with pytest.raises(KeyError, match="on the way"):
        fail()
    assert hook_count(unet) == 0


def test_gradient_flows_through_captured_maps(unet: nn.Module) -> None:
    with capture(unet, ("decoder.blocks.1",)) as seen:
        unet(torch.randn(1, 3, 32, 32))
    read_captured(seen).modules["decoder.blocks.1"].sum().backward()
    assert unet.encoder.conv1.weight.grad is not None
    assert unet.encoder.conv1.weight.grad.abs().sum() > 0
    assert unet.segmentation_head[0].weight.grad is None
    unet.zero_grad()


def test_both_layouts_of_encoder_outputs_mean_the_same_depths() -> None:
    image = torch.zeros(1, 3, 32, 32)
    stages = [torch.full((1, depth, 32 >> depth, 32 >> depth), float(depth)) for depth in (1, 2, 3)]

    def read(output: Any) -> Captured:
        return read_captured({"image": image, "encoder": output, "modules": {}})

    for output in ([image, *stages], stages, (stages, [None, None, None])):
        captured = read(output)
        assert len(captured.encoder) == 3
        assert all(a is b for a, b in zip(captured.encoder, stages, strict=True))


def test_a_map_is_kept_as_the_module_gave_it() -> None:
    """resnet's activations overwrite what batch norms give them."""
    net = smp.create_model("unet", "resnet18", encoder_weights=None, classes=4).eval()
    path = "encoder.layer2.0.bn1"
    seen: list[torch.Tensor] = []
    handle = net.get_submodule(path).register_forward_hook(lambda *all: seen.append(all[-1].clone()))
    with torch.no_grad(), capture(net, (path,)) as captured:
        net(torch.randn(1, 3, 64, 64))
    handle.remove()
    found = read_captured(captured).modules[path]
    assert float(found.min()) < 0
    assert torch.equal(found, seen[0])
