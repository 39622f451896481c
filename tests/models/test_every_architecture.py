"""One contract for every smp architecture: it is built, both players take a step, and plain smp gets it back."""

from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from lightning_fabric import Fabric
from networks import ARCHITECTURES
from torch import Tensor, nn

from segdistill.build.network import build_deployed
from segdistill.build.training import build_loop_settings, build_state
from segdistill.config import Config
from segdistill.config_io import validate_config
from segdistill.data.loading import Batch
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import ConfigError
from segdistill.export.weights import load_deployed, save_deployed
from segdistill.models.primary import input_multiple
from segdistill.models.reparam import ParallelConv
from segdistill.models.taps import capture, read_captured
from segdistill.normalisation import Normalisation
from segdistill.training.state import TrainState
from segdistill.training.steps import train_step

#: (encoder, taps, side of the image in pixels) of every architecture.
SMALLEST: dict[str, tuple[str, list[int | str], int]] = {
    "unet": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "unetplusplus": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "manet": ("tu-mobilenetv3_small_050", [2, 5], 64),
    "linknet": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "fpn": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "pspnet": ("resnet18", [2, 3], 64),  # its encoder ends at stride 8
    "deeplabv3": ("tu-mobilenetv3_small_050", [3, 5], 64),  # depths 4 and 5 are dilated, at stride 8
    "deeplabv3plus": ("resnet18", [3, 5], 64),
    "pan": ("tu-mobilenetv3_small_050", [3, 4], 128),  # its attention pools stride 16 eightfold
    "upernet": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "segformer": ("tu-mobilenetv3_small_050", [3, 4], 64),
    "dpt": ("tu-vit_tiny_patch16_224", [1, 3], 64),  # every depth is at stride 16
}
#: DPT's decoder is wide; narrower it is the same network.
OPTIONS: dict[str, dict[str, Any]] = {
    "dpt": {"decoder_intermediate_channels": [8, 16, 32, 32], "decoder_fusion_channels": 16}
}
LOGGED = {
    *("primary", "branches", "logit", "feature", "adversarial", "total"),
    *("gradient_norm", "branch_gradient_norm", "teacher_right", "discriminator", "discriminator_accuracy"),
}
#: Parameters the networks of smp hold and never use.
UNUSED = {
    "pspnet": ("primary.encoder.layer3.", "primary.encoder.layer4."),
    "dpt": ("primary.encoder.model.norm.", "primary.encoder.model.head."),
}

HALVES = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def config_of(
    arch: str, encoder: str, taps: list[Any], *, side: int = 64, **method: dict[str, Any]
) -> Config:
    sections: dict[str, dict[str, Any]] = {"branches": {}, "adversarial": {}, **method}
    sections["branches"] = {"taps": taps, "width": 8, **sections["branches"]}
    sections["adversarial"] = {"width": 8, **sections["adversarial"]}
    for term in ("logit", "feature", "adversarial"):  # from the first step on
        sections[term] = {"ramp": [[0, 1]], **sections.get(term, {})}
    values = {
        "name": "contract",
        "data": {"kind": "synthetic", "size": [side, side]},
        "model": {
            "arch": arch,
            "encoder": encoder,
            "encoder_weights": "none",
            "options": OPTIONS.get(arch, {}),
        },
        "method": sections,
        # Decay would move weights that get no gradient.
        "train": {"optimizer": {"weight_decay": 0.0}},
    }
    return validate_config(values, source="test")


def started(config: Config) -> TrainState:
    return build_state(config, Fabric(accelerator="cpu", devices=1), total_steps=20)


def one_step(state: TrainState, config: Config) -> dict[str, Tensor]:
    side = config.data.size[0]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CAMVID.num_classes, (2, side, side), generator=generator)
    labels[:, : side // 3, 5:23] = CAMVID.ignore_index
    images = torch.randn(2, 3, side, side, generator=generator)
    settings = build_loop_settings(config, multiple=input_multiple(state.net.primary)).step
    return train_step(state, [Batch(images, labels)], settings, progress=0.5, diagnose=False)


def copy_of_parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def assert_everything_learns(config: Config, *, unused: tuple[str, ...] = ()) -> TrainState:
    state = started(config)
    assert state.opponent
    net, discriminator = state.net, state.opponent.module
    before, opponent_before = copy_of_parameters(net), copy_of_parameters(discriminator)

    values = one_step(state, config)

    assert set(values) == LOGGED
    assert not [name for name, value in values.items() if not torch.isfinite(value)]
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())
    changed = {name for name, value in net.named_parameters() if not torch.equal(before[name], value)}
    parts = ["primary.encoder", "primary.decoder", "primary.segmentation_head"]
    parts += [f"branches.{name}" for name in net.branches] + ["adapters.primary"]
    learnt = {part: [name for name in before if name.startswith(part + ".")] for part in parts}
    for part, names in learnt.items():
        assert names, f"{part} has no parameters"
    assert sum(map(len, learnt.values())) == len(before)
    # A bias may sit on a dead ReLU, and so may MAnet's attention of a single channel; all other weights move.
    weights = {name for name, value in before.items() if value.ndim > 1 and ".SE_hl." not in name}
    assert [name for name in sorted(weights - changed) if not name.startswith(unused)] == []
    assert not [name for name in changed if name.startswith(unused)]
    moved = [
        name
        for name, value in discriminator.named_parameters()
        if not torch.equal(opponent_before[name], value)
    ]
    assert moved == list(opponent_before)
    return state


def hooks_on(model: nn.Module) -> list[str]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        f"{name}.{kind}" for name, module in model.named_modules() for kind in kinds if vars(module)[kind]
    ]


def plain_smp(arch: str, encoder: str) -> nn.Module:
    keywords = OPTIONS.get(arch, {}) | ({"dynamic_img_size": True} if arch == "dpt" else {})
    return smp.create_model(arch, encoder, encoder_weights=None, classes=CAMVID.num_classes, **keywords)


def assert_captured_maps_are_its_own(primary: nn.Module, images: Tensor) -> None:
    """Nothing downstream may overwrite a map before the branches read it."""
    transformer = isinstance(primary, smp.DPT)
    with capture(primary) as seen:
        primary(images)
    captured = read_captured(seen)
    features = primary.encoder(images)
    features = features[0] if transformer else features[1:]
    assert len(captured.encoder) == len(features)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(captured.encoder, features, strict=True))


def test_the_list_is_complete() -> None:
    assert set(ARCHITECTURES) == set(smp.MODEL_ARCHITECTURES_MAPPING)
    assert set(SMALLEST) == set(ARCHITECTURES)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_players_step_and_plain_smp_gets_it_back(arch: str, tmp_path: Path) -> None:
    encoder, taps, side = SMALLEST[arch]
    config = config_of(arch, encoder, taps, side=side)
    state = assert_everything_learns(config, unused=UNUSED.get(arch, ()))

    deployed = state.net.deploy()
    assert type(deployed) is smp.MODEL_ARCHITECTURES_MAPPING[arch]
    assert deployed is state.net.primary
    assert hooks_on(deployed) == []

    plain = plain_smp(arch, encoder)
    plain.load_state_dict(deployed.state_dict(), strict=True)
    images = torch.randn(2, 3, 2 * side, side)
    # Memory formats choose between kernels that round differently.
    deployed.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        expected = deployed(images)
        assert torch.equal(plain.eval()(images), expected)
        assert_captured_maps_are_its_own(plain, images)
        save_deployed(
            tmp_path / "primary.safetensors", deployed, build_deployed(config, deployed, normalisation=HALVES)
        )
        assert torch.equal(load_deployed(tmp_path / "primary.safetensors")[0](images), expected)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plain_smp_gets_one_of_each_parallel_convolution(arch: str) -> None:
    encoder, taps, side = SMALLEST[arch]
    config = config_of(arch, encoder, taps, side=side, reparam={"copies": 1})
    state = started(config)
    one_step(state, config)
    trained = state.net.primary
    assert any(isinstance(module, ParallelConv) for module in trained.modules())

    deployed = state.net.deploy()
    assert type(deployed) is smp.MODEL_ARCHITECTURES_MAPPING[arch]
    assert hooks_on(deployed) == []
    plain = plain_smp(arch, encoder)
    plain.load_state_dict(deployed.state_dict(), strict=True)
    images = torch.randn(2, 3, 2 * side, side)
    with torch.no_grad():
        expected = trained.eval()(images)
        difference = (plain.eval()(images) - expected).abs().max()
    assert float(difference) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("kind", ["cosine", "affinity"])
@pytest.mark.parametrize("game", ["label", "peer"])
def test_both_games_and_both_feature_losses(game: str, kind: str) -> None:
    config = config_of(
        "unet", "tu-mobilenetv3_small_050", [3, 5], feature={"kind": kind}, adversarial={"game": game}
    )
    state = assert_everything_learns(config)
    assert state.opponent
    assert state.opponent.module.layers[-1].out_channels == (1 if game == "label" else 3)


@pytest.mark.parametrize(
    ("arch", "encoder", "taps", "branches"),
    [
        ("unet", "resnet18", ["decoder.blocks.1"], {}),
        ("unet", "tu-mobilenetv3_small_050", ["decoder.blocks.1", 3, 5], {"stride": 2, "dropout": 0.3}),
        ("unet", "tu-mobilenetv3_small_050", ["decoder.blocks.4", 1], {}),  # finer than the branches' stride
        ("fpn", "tu-mobilenetv3_small_050", [4, "decoder.seg_blocks.0"], {}),
        ("unet", "mit_b0", [2, 4], {}),  # nothing at depth 1
        ("unet", "tu-convnext_atto", [2, 3], {"stride": 2}),  # nothing at depth 1
    ],
)
def test_unusual_taps(arch: str, encoder: str, taps: list[Any], branches: dict[str, Any]) -> None:
    state = assert_everything_learns(config_of(arch, encoder, taps, branches=branches))
    assert len(state.net.branches) == len(taps)
    assert state.net.submodels[0] == "primary"


def test_size_that_is_no_multiple_of_the_stride() -> None:
    assert_everything_learns(config_of("unet", "tu-mobilenetv3_small_050", [3, 4], side=75))


@pytest.mark.parametrize(
    ("arch", "encoder", "taps", "told"),
    [
        (
            "unet",
            "tu-mobilenetv3_small_050",
            [3, 7],
            r"no feature at depth 7; it has depths \[1, 2, 3, 4, 5\]",
        ),
        ("pspnet", "resnet18", [4], r"no feature at depth 4; it has depths \[1, 2, 3\]"),
        ("unet", "mit_b0", [1], r"no feature at depth 1; it has depths \[2, 3, 4, 5\]"),
        ("unet", "tu-convnext_atto", [1], r"no feature at depth 1; it has depths \[2, 3, 4, 5\]"),
        ("unet", "tu-mobilenetv3_small_050", ["decoder.blocks.9"], r"no module 'decoder\.blocks\.9'"),
        ("unet", "tu-mobilenetv3_small_050", ["encoder"], r"module 'encoder' is not a 4-D tensor"),
        ("pspnet", "resnet18", ["encoder.layer4"], r"module 'encoder\.layer4' is not a 4-D tensor"),
    ],
)
def test_tap_that_is_not_there(arch: str, encoder: str, taps: list[Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.branches\.taps = .*{told}"):
        started(config_of(arch, encoder, taps))
