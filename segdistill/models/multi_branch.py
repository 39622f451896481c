"""The multi-branch network: primary stream and branch decoders, trained as one, deployed as the primary alone."""

from typing import NamedTuple

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn

from segdistill.models.branches import BranchDecoder, BranchOutput
from segdistill.models.reparam import merge
from segdistill.models.taps import Captured, MapInfo, TapMap, capture, read_captured
from segdistill.resolution import fit_to
from segdistill.streams import PRIMARY

#: A tap is an encoder depth (1 is the finest) or the dotted path of a module of the primary stream.
Tap = int | str


class MultiBranchOutput(NamedTuple):
    """Logits and features of every sub-model.

    A NamedTuple and not a frozen dataclass: Fabric and DistributedDataParallel rebuild the outputs of the
    modules they wrap, and refuse frozen dataclasses.
    """

    primary: Tensor  # (B, C, H, W)
    branches: dict[
        str, Tensor
    ]  # name -> (B, C, H/s, W/s) with the branches' stride s; empty if not asked for
    # name -> of a branch (B, A, h, w), standardised; of the primary, what it predicts for all K branches,
    # (B, K * A, h, w) in their order; empty if not asked for
    features: dict[str, Tensor]


class BranchSpec(NamedTuple):
    """What is common to all branches."""

    taps: tuple[Tap, ...]
    width: int  # channels
    stride: int  # pixels per cell of the branch logits
    dropout: float
    encoder_gradient: float  # 0 lets branches learn without teaching the shared layers, 1 is plain training


def branch_name(tap: Tap) -> str:
    """`branch3` for encoder depth 3, `branch_decoder_blocks_1` for module path `decoder.blocks.1`."""
    return f"branch{tap}" if isinstance(tap, int) else "branch_" + tap.replace(".", "_")


def scale_gradient(maps: Tensor, factor: float) -> Tensor:
    """The same values, also in 16 bits, with the gradient that flows back multiplied by `factor`."""
    if factor == 1.0:
        return maps
    values = maps.detach()
    return values if factor == 0.0 else values + factor * (maps - values)


class MultiBranchNet(nn.Module):
    """A primary stream with branch decoders and, for the feature loss, a layer that predicts their features."""

    def __init__(
        self,
        primary: SegmentationModel,
        *,
        tap_map: TapMap,
        num_classes: int,
        branches: BranchSpec | None,
        feature_stride: int | None,
        feature_path: str = "",
    ) -> None:
        """
        Args:
            primary: an smp model, perhaps one with parallel convolutions; used as it is and not changed.
            tap_map: what `survey` found in it.
            num_classes: C.
            branches: None for a plain network.
            feature_stride: pixels per cell where features are compared; None if they never are.
            feature_path: module of the primary whose output predicts the branches' features.
        """
        super().__init__()
        self.primary = primary
        self.spec = branches
        self.feature_stride = feature_stride
        self.feature_path = feature_path
        self.branches = nn.ModuleDict()
        self.adapters = nn.ModuleDict()
        self._taps: dict[str, Tap] = {}
        self._laterals: dict[str, tuple[int, ...]] = {}
        if branches is None:
            return
        for tap in branches.taps:
            info = tap_info(tap_map, tap)
            # A tap by its path starts at its own depth: most lie in the decoder, which has seen the whole encoder.
            deepest = max(32, info.stride) if isinstance(tap, int) else info.stride
            laterals = lateral_depths(tap_map, below_stride=info.stride, out_stride=branches.stride)
            name = branch_name(tap)
            self._taps[name] = tap
            self._laterals[name] = laterals
            self.branches[name] = BranchDecoder(
                tap=info,
                laterals=tuple(tap_map.encoder[depth - 1] for depth in laterals),
                num_classes=num_classes,
                width=branches.width,
                out_stride=branches.stride,
                deepest_stride=deepest,
                dropout=branches.dropout,
            )
        if feature_stride is not None:
            predicted = branches.width * len(branches.taps)
            self.adapters[PRIMARY] = nn.Conv2d(tap_map.modules[feature_path].channels, predicted, 1)
            # Without standardisation a few large channels would be all that the cosine sees.
            for name in self.branches:
                self.adapters[name] = nn.BatchNorm2d(branches.width, affine=False)

    @property
    def submodels(self) -> tuple[str, ...]:
        """Names of all sub-models, the primary first."""
        return (PRIMARY, *self.branches)

    def forward(
        self,
        images: Tensor,
        *,
        with_branches: bool = True,
        branches_learn: bool = True,
        with_features: bool = False,
    ) -> MultiBranchOutput:
        """
        Args:
            images: (B, 3, H, W), normalised; H and W are multiples of the encoder's stride.
            with_branches: without them this is one forward pass of the primary.
            branches_learn: if not, no gradient flows into them, and none of their maps are kept for one.
            with_features: also give the features that are compared; needs `with_branches`.
        """
        if not (with_branches and self.spec):
            return MultiBranchOutput(self.primary(images), {}, {})
        compared = self.feature_stride if with_features else None
        paths = {tap for tap in self._taps.values() if isinstance(tap, str)}
        with capture(self.primary, (*paths, *([self.feature_path] if compared else []))) as seen:
            primary_logits = self.primary(images)
        captured = read_captured(seen)
        with torch.set_grad_enabled(branches_learn and torch.is_grad_enabled()):
            outputs = self._decode(captured, *(size // self.spec.stride for size in images.shape[-2:]))
        branch_logits = {name: out.logits for name, out in outputs.items()}
        if not compared:
            return MultiBranchOutput(primary_logits, branch_logits, {})
        features = {name: out.features for name, out in outputs.items()}
        features[PRIMARY] = captured.modules[self.feature_path]
        height, width = (size // compared for size in images.shape[-2:])
        adapted = {
            name: adapt(fit_to(features[name], height, width)) for name, adapt in self.adapters.items()
        }
        return MultiBranchOutput(primary_logits, branch_logits, adapted)

    def _decode(self, captured: Captured, rows: int, columns: int) -> dict[str, BranchOutput]:
        """What every branch makes of the maps that the primary has computed."""
        assert self.spec is not None
        gradient = self.spec.encoder_gradient
        shared = [scale_gradient(maps, gradient) for maps in captured.encoder]
        outputs = {}
        for name, decoder in self.branches.items():
            tap = self._taps[name]
            tapped = (
                shared[tap - 1] if isinstance(tap, int) else scale_gradient(captured.modules[tap], gradient)
            )
            beside = tuple(shared[depth - 1] for depth in self._laterals[name])
            outputs[name] = decoder(tapped, beside, height=rows, width=columns)
        return outputs

    def deploy(self) -> SegmentationModel:
        """The primary stream as plain smp has it: what was added to it is gone or merged into it."""
        return merge(self.primary)


def tap_info(tap_map: TapMap, tap: Tap) -> MapInfo:
    """Describe the tapped map.

    Raises:
        ValueError: if the encoder has no feature at that depth; the message gives the depths there are.
    """
    if isinstance(tap, str):
        return tap_map.modules[tap]
    depths = [depth for depth, info in enumerate(tap_map.encoder, 1) if info.channels]
    if tap not in depths:
        raise ValueError(f"the encoder has no feature at depth {tap}; it has depths {depths}")
    return tap_map.encoder[tap - 1]


def lateral_depths(tap_map: TapMap, *, below_stride: int, out_stride: int) -> tuple[int, ...]:
    """Depths of the encoder's features that a branch climbs past: one for each stride, the deepest of it."""
    by_stride = {info.stride: depth for depth, info in enumerate(tap_map.encoder, 1) if info.channels}
    return tuple(by_stride[stride] for stride in sorted(by_stride) if out_stride <= stride < below_stride)
