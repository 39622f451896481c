"""Branch decoders."""

import pytest
import torch
from torch import Tensor, nn

from segdistill.models.branches import BranchDecoder, BranchOutput, conv_block
from segdistill.models.taps import MapInfo

#: A pyramid as encoders have it: channels by stride.
CHANNELS = {2: 3, 4: 5, 8: 7, 16: 9, 32: 11}
HEIGHT, WIDTH = 64, 96


def decoder_at(
    tap: int, *, laterals: tuple[int, ...], out: int = 4, deepest: int = 32, dropout: float = 0.0
) -> BranchDecoder:
    return BranchDecoder(
        tap=MapInfo(CHANNELS[tap], tap),
        laterals=tuple(MapInfo(CHANNELS[stride], stride) for stride in laterals),
        num_classes=6,
        width=8,
        out_stride=out,
        deepest_stride=deepest,
        dropout=dropout,
    )


def map_at(stride: int) -> Tensor:
    return torch.randn(2, CHANNELS[stride], HEIGHT // stride, WIDTH // stride, requires_grad=True)


def run(decoder: BranchDecoder, tap: int, laterals: tuple[int, ...], *, out: int = 4) -> BranchOutput:
    return on_image(decoder, map_at(tap), tuple(map_at(stride) for stride in laterals), out=out)


def on_image(
    decoder: BranchDecoder, tapped: Tensor, shallower: tuple[Tensor, ...], *, out: int
) -> BranchOutput:
    return decoder(tapped, shallower, height=HEIGHT // out, width=WIDTH // out)


@pytest.mark.parametrize(
    ("tap", "laterals", "out", "deepest", "down"),
    [
        (8, (4,), 4, 32, 2),
        (8, (2, 4), 2, 32, 2),
        (16, (4, 8), 4, 32, 1),
        (32, (2, 4, 8, 16), 2, 32, 0),
        (16, (), 4, 32, 1),  # nothing finer, as in a vision transformer
        (8, (4,), 4, 8, 0),  # a decoder's map stands for the whole depth
        (4, (), 4, 32, 3),
        (2, (), 4, 32, 4),  # finer than the output
        (32, (4,), 4, 32, 0),  # octaves may be skipped
    ],
)
def test_shapes_and_depth(tap: int, laterals: tuple[int, ...], out: int, deepest: int, down: int) -> None:
    decoder = decoder_at(tap, laterals=laterals, out=out, deepest=deepest)
    output = run(decoder, tap, laterals, out=out)
    assert output.features.shape == (2, 8, HEIGHT // out, WIDTH // out)
    assert output.logits.shape == (2, 6, HEIGHT // out, WIDTH // out)
    assert len(decoder.down) == down
    assert len(decoder.climb) == down + len(laterals)


def test_channels_double_with_every_octave_below_the_output() -> None:
    decoder = decoder_at(8, laterals=(2, 4), out=2)  # width 8
    seen: list[tuple[int, int]] = []  # stride, channels
    for block in (decoder.entry, *decoder.down, decoder.bottleneck, *decoder.climb):
        block.register_forward_hook(
            lambda _block, _inputs, maps: seen.append((WIDTH // maps.shape[3], maps.shape[1]))
        )
    run(decoder, 8, (2, 4), out=2)
    at_most_four_times = [(8, 32), (16, 32), (32, 32), (32, 32), (16, 32), (8, 32)]
    assert seen == [*at_most_four_times, (4, 16), (2, 8)]


@pytest.mark.parametrize(("tap", "laterals", "out"), [(16, (4, 8), 4), (16, (), 4), (4, (), 2)])
def test_every_parameter_and_every_map_takes_part(tap: int, laterals: tuple[int, ...], out: int) -> None:
    decoder = decoder_at(tap, laterals=laterals, out=out)
    tapped, shallower = map_at(tap), tuple(map_at(stride) for stride in laterals)
    on_image(decoder, tapped, shallower, out=out).logits.square().mean().backward()
    assert all(maps.grad is not None and maps.grad.abs().sum() > 0 for maps in (tapped, *shallower))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_strided_blocks_see_further_than_the_tap() -> None:
    def reach(deepest: int) -> int:
        torch.manual_seed(0)
        decoder = decoder_at(8, laterals=(), deepest=deepest).eval()
        tapped = torch.randn(1, CHANNELS[8], 32, 32, requires_grad=True)
        decoder(tapped, (), height=64, width=64).logits[0, 0, 32, 32].backward()
        assert tapped.grad is not None
        return int((tapped.grad.abs().sum((0, 1)) > 0).any(0).sum())

    assert reach(8) < reach(16) < reach(32)


def test_logits_are_the_head_of_the_features() -> None:
    decoder = decoder_at(8, laterals=(4,), dropout=0.5).eval()
    output = run(decoder, 8, (4,))
    assert torch.equal(decoder.head(output.features), output.logits)


def test_dropout_zeroes_whole_channels_in_training_alone() -> None:
    decoder = decoder_at(8, laterals=(4,), dropout=0.5)
    seen: list[Tensor] = []
    decoder.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    features = run(decoder, 8, (4,)).features
    dropped = (seen[-1] == 0).flatten(2).all(2)  # (B, width)
    assert 0 < dropped.sum() < dropped.numel()
    assert not (features == 0).flatten(2).all(2)[dropped].any()  # what is compared is not dropped
    features = run(decoder.eval(), 8, (4,)).features
    assert torch.equal(seen[-1], features)


def test_number_of_laterals_is_checked() -> None:
    with pytest.raises(ValueError, match="zip"):
        on_image(decoder_at(8, laterals=(4,)), map_at(8), (), out=4)


def test_conv_block() -> None:
    block = conv_block(3, 5, stride=2)
    assert block(torch.randn(2, 3, 8, 12)).shape == (2, 5, 4, 6)
    assert block(torch.randn(2, 3, 8, 12)).min() == 0  # rectified
    assert conv_block(3, 5, kernel=1)(torch.randn(2, 3, 8, 12)).shape == (2, 5, 8, 12)
    assert [module.bias for module in block if isinstance(module, nn.Conv2d)] == [None]
