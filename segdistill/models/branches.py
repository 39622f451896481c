"""Branch decoders: each makes a whole, shallower segmentation network out of part of the primary stream."""

import itertools
from typing import NamedTuple

from torch import Tensor, nn

from segdistill.models.taps import MapInfo
from segdistill.resolution import fit_to, upsample


class BranchOutput(NamedTuple):
    features: Tensor  # (B, width, H/stride, W/stride)
    logits: Tensor  # (B, C, H/stride, W/stride)


def conv_block(in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU. (B, in, H, W) -> (B, out, H/stride, W/stride).

    Plain convolutions: with depthwise-separable ones the branches stayed 5 mIoU points under the primary.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


#: How many times wider than its last map a branch is at most, far down.
WIDEST = 4


class BranchDecoder(nn.Module):
    """From a tapped feature map to logits.

    Strided blocks stand in for the depth that the tap skips, down to `deepest_stride`; a top-down path
    then climbs back to `out_stride`, adding at every octave what lies beside it: the block of the same
    stride on the way down, or the encoder's feature through a 1x1 convolution.

    Every octave further down has twice the channels, as in the encoder, so it costs as much as the one
    above it, until there are `WIDEST` times as many.
    """

    def __init__(
        self,
        *,
        tap: MapInfo,
        laterals: tuple[MapInfo, ...],
        num_classes: int,
        width: int,
        out_stride: int,
        deepest_stride: int,
        dropout: float,
    ) -> None:
        """
        Args:
            tap: the map the branch starts from.
            laterals: shallower maps it may use, each of another stride below the tap's, finest first.
            num_classes: C.
            width: channels at `out_stride`; twice as many at every octave below it, at most `WIDEST` times.
            out_stride: pixels per cell of the branch's logits.
            deepest_stride: how far down the stand-in blocks go; the tap's own stride means none.
            dropout: share of the last feature map's channels that is zeroed in training.
        """
        super().__init__()

        def width_at(stride: int) -> int:
            return width * min(max(stride // out_stride, 1), WIDEST)

        depth_blocks = (deepest_stride // tap.stride).bit_length() - 1
        descent = [tap.stride << octave for octave in range(depth_blocks + 1)]
        ascent = [*reversed(descent), *(info.stride for info in reversed(laterals))]
        self.entry = conv_block(tap.channels, width_at(tap.stride), kernel=1)
        self.down = nn.ModuleList(
            conv_block(width_at(above), width_at(below), stride=2)
            for above, below in itertools.pairwise(descent)
        )
        self.bottleneck = conv_block(width_at(ascent[0]), width_at(ascent[0]))
        self.laterals = nn.ModuleList(
            conv_block(info.channels, width_at(info.stride), kernel=1) for info in laterals
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(width_at(below), width_at(above), 1, bias=False)
            for below, above in itertools.pairwise(ascent)
        )
        self.climb = nn.ModuleList(conv_block(width_at(stride), width_at(stride)) for stride in ascent[1:])
        self.dropout = nn.Dropout2d(dropout)
        # Nothing finer lies beside the path, as in a vision transformer: wide maps are not upsampled.
        self.last = (
            conv_block(width_at(ascent[-1]), width, kernel=1) if ascent[-1] > out_stride else nn.Identity()
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(
        self, tapped: Tensor, shallower: tuple[Tensor, ...], *, height: int, width: int
    ) -> BranchOutput:
        """
        Args:
            tapped: (B, C_t, H/s_t, W/s_t).
            shallower: the maps described by `laterals`, in their order.
            height: of the output in cells, H/stride. Not taken from the maps: some encoders round theirs up.
            width: likewise.
        """
        beside = [lateral(maps) for lateral, maps in zip(self.laterals, shallower, strict=True)]
        x = self.entry(tapped)
        for block in self.down:
            beside.append(x)
            x = block(x)
        x = self.bottleneck(x)
        for narrow, block in zip(self.narrow, self.climb, strict=True):
            finer = beside.pop()
            x = block(upsample(narrow(x), *finer.shape[-2:]) + finer)
        features = fit_to(self.last(x), height, width)
        return BranchOutput(features, self.head(self.dropout(features)))
