"""Reading feature maps out of a network that knows nothing of it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn


class MapInfo(NamedTuple):
    """A feature map's static description."""

    channels: int
    stride: int  # pixels of the image per cell


class Captured(NamedTuple):
    """What one forward pass of a primary stream let us see."""

    encoder: tuple[Tensor, ...]  # encoder[d - 1]: (B, C_d, H_d, W_d), the feature of depth d
    modules: dict[str, Tensor]  # module path -> its 4-D output


@contextmanager
def capture(primary: SegmentationModel, module_paths: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Record feature maps while the block runs; hooks are gone afterwards, so the network stays a plain one.

    Yields:
        A dict that a forward pass of `primary` fills; `read_captured` turns it into a `Captured`.
    """
    seen: dict[str, Any] = {"modules": {}}

    def see_encoder(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        seen["image"], seen["encoder"] = inputs[0], output

    def see_module(path: str) -> Any:
        return lambda _module, _inputs, output: seen["modules"].__setitem__(path, _kept(output))

    handles = [
        primary.get_submodule("encoder").register_forward_hook(see_encoder),
        *(primary.get_submodule(path).register_forward_hook(see_module(path)) for path in module_paths),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _kept(output: Any) -> Any:
    """A map as it is now: an activation that follows may overwrite it in place."""
    return output.clone() if isinstance(output, Tensor) else output


def read_captured(seen: Mapping[str, Any]) -> Captured:
    """Order what the hooks saw.

    smp's convolutional encoders return [image, depth 1, depth 2, ...], VGG a map of the image's size in its place; its
    vision transformers return ([depth 1, ...], prefix tokens). Depth d means the same place in both.
    """
    features = seen["encoder"]
    if isinstance(features[0], (list, tuple)):
        features = features[0]
    if features[0].shape[-2:] == seen["image"].shape[-2:]:
        features = features[1:]
    return Captured(tuple(features), seen["modules"])


def decoder_map_path(primary: SegmentationModel, *, stride: int, height: int, width: int) -> str:
    """The module of the decoder whose output is its last map before it becomes finer than `stride`.

    `decoder.blocks.2` in a U-Net of five blocks at stride 4, the whole `decoder` in an FPN.

    Args:
        primary: any smp model; its training mode is restored, its buffers are not touched.
        stride: pixels per cell. Of a decoder that is finer everywhere it is the coarsest map, of one that is
            coarser everywhere the finest.
        height: of the trial image; a multiple of the encoder's stride.
        width: likewise.
    """
    paths = tuple(
        f"decoder.{name}".rstrip(".") for name, _ in primary.get_submodule("decoder").named_modules()
    )
    captured, _ = _trial(primary, paths, height=height, width=width)
    strides = {
        path: height // output.shape[-2]
        for path, output in captured.modules.items()
        if _is_map(output) and _on_grid(output, height, width)
    }
    reached = [one for one in strides.values() if one >= stride]
    wanted = min(reached) if reached else max(strides.values())
    return [path for path, one in strides.items() if one == wanted][-1]


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


def _on_grid(maps: Tensor, height: int, width: int) -> bool:
    """Whether every cell is a square of whole pixels, which those of a pooling to a fixed size seldom are."""
    rows, columns = maps.shape[-2:]
    return height % rows == 0 and height * columns == width * rows


def _octave(maps: Tensor, height: int, width: int) -> int | None:
    """Pixels per cell as a power of two; None if rows and columns say different ones, so that it is no map of the
    image. Rounded to the nearest power of two, because some encoders round map sizes up (MobileViT, to whole windows).
    """
    down, across = (
        round(math.log2(side / cells)) for side, cells in zip((height, width), maps.shape[-2:], strict=True)
    )
    return 1 << down if down == across >= 0 else None


@torch.no_grad()
def _trial(
    primary: SegmentationModel, module_paths: tuple[str, ...], *, height: int, width: int
) -> tuple[Captured, Tensor]:
    """What an empty image leaves on its way through the network, which is not changed by it, and its logits."""
    was_training = primary.training
    primary.eval()
    with capture(primary, module_paths) as seen:
        logits = primary(torch.zeros(1, 3, height, width, device=next(primary.parameters()).device))
    primary.train(was_training)
    return read_captured(seen), logits


class TapMap(NamedTuple):
    """Where a primary stream offers feature maps, found by one forward pass."""

    encoder: tuple[MapInfo, ...]  # by depth, from depth 1; channels 0 where the encoder has no such stage
    modules: dict[str, MapInfo]
    logits: tuple[int, int]  # height, width


def survey(primary: SegmentationModel, module_paths: tuple[str, ...], *, height: int, width: int) -> TapMap:
    """Run an empty image through the network and note channels and stride of its maps.

    Args:
        primary: any smp model; its training mode is restored, its buffers are not touched.
        module_paths: dotted names of further modules to look at.
        height: of the trial image; a multiple of the encoder's stride.
        width: likewise.

    Raises:
        ValueError: if a module path does not exist or its output is no map of the image.
    """
    known = dict(primary.named_modules())
    for path in module_paths:
        if path not in known:
            raise ValueError(f"there is no module {path!r} in the primary stream")
    captured, logits = _trial(primary, module_paths, height=height, width=width)

    def info(maps: Any, path: str) -> MapInfo:
        if not _is_map(maps):
            raise ValueError(f"the output of module {path!r} is not a 4-D tensor and cannot be tapped")
        if (stride := _octave(maps, height, width)) is None:
            raise ValueError(
                f"the output of module {path!r} has the shape {tuple(maps.shape[1:])} for an image of "
                f"{height}x{width}, which is no map of (channels, rows, columns), and cannot be tapped"
            )
        return MapInfo(maps.shape[1], stride)

    return TapMap(
        encoder=tuple(info(maps, f"encoder depth {d}") for d, maps in enumerate(captured.encoder, 1)),
        modules={path: info(captured.modules.get(path), path) for path in module_paths},
        logits=(logits.shape[-2], logits.shape[-1]),
    )
