"""Views against what geometry, powers and rectangles say."""

from typing import Any

import pytest
import torch
from torch import Tensor

from segdistill.data.loading import Batch
from segdistill.data.views import StrongViews
from segdistill.normalisation import Normalisation

IGNORED = 255
RADIUS = 7
NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))
STILL: dict[str, Any] = {
    "flip": 0.5,
    "rotate": 0.0,
    "scale": (1.0, 1.0),
    "gamma": 1.0,
    "gain": 0.0,
    "paste": 0.0,
}


def normalised(colours: Tensor) -> Tensor:
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in (NORMALISATION.mean, NORMALISATION.std))
    return (colours - mean) / std


def colours_of(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in (NORMALISATION.mean, NORMALISATION.std))
    return images * std + mean


def views_of(colours: Tensor, seed: int = 0, labels: Tensor | None = None, **changes: Any) -> Batch:
    """Of (B, 3, H, W) in 0..1."""
    torch.manual_seed(seed)
    labels = torch.zeros(len(colours), *colours.shape[-2:]).long() if labels is None else labels
    return StrongViews(NORMALISATION, **{**STILL, **changes})(
        Batch(normalised(colours), labels), ignore_index=IGNORED
    )


def test_without_any_strength_an_image_is_itself_or_its_mirror() -> None:
    colours = torch.rand(16, 3, 10, 14)
    views, labels = views_of(colours)
    assert (labels == 0).all(), "all of the image is shown"
    mirrored = 0
    for view, image in zip(colours_of(views), colours, strict=True):
        is_mirrored = torch.allclose(view, image.flip(-1), atol=1e-5)
        assert is_mirrored or torch.allclose(view, image, atol=1e-5)
        mirrored += is_mirrored
    assert 0 < mirrored < 16


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
def test_a_disk_stays_a_disk_of_the_scale_s_size(zoom: float) -> None:
    """Whatever the angle, on an image that is not square: 64 x 128, the disk in its middle."""
    rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(128) - 63.5, indexing="ij")
    disk = ((rows**2 + columns**2) < RADIUS**2).float().expand(24, 3, 64, 128)
    views, _ = views_of(disk, rotate=90.0, scale=(zoom, zoom))
    shown = colours_of(views)[:, 0].clamp(0, 1) * (views != 0).any(1)
    area = shown.sum((1, 2))
    whole = area > 0.99 * area.max()  # a shift may have cut others off
    assert whole.sum() >= 5
    for one in shown[whole]:
        total = one.sum()
        middle = (one * rows).sum() / total, (one * columns).sum() / total
        spread = (
            (one * (rows - middle[0]) ** 2).sum() / total,
            (one * (columns - middle[1]) ** 2).sum() / total,
        )
        assert total.item() == pytest.approx(torch.pi * RADIUS**2 * zoom**2, rel=0.03)
        assert [float(value) for value in spread] == pytest.approx([(RADIUS * zoom) ** 2 / 4] * 2, rel=0.1)


def test_a_turned_image_is_turned_as_numpy_turns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "segdistill.data.views._uniform", lambda count, low, high, _: torch.full((count,), high)
    )
    colours = torch.rand(6, 3, 12, 12)
    views, labels = views_of(colours, rotate=90.0)
    assert (labels == 0).all()
    for view, image in zip(colours_of(views), colours, strict=True):
        turned = [torch.rot90(image, turns, (1, 2)) for turns in (1, 3)]
        assert any(
            torch.allclose(view, one, atol=1e-4) for one in [*turned, *(one.flip(-1) for one in turned)]
        )


def test_what_lies_beyond_the_image_has_the_mean_colour_and_is_ignored() -> None:
    views, labels = views_of(torch.rand(4, 3, 40, 60), scale=(0.5, 0.5))
    share = (labels == 0).float().mean().item()
    assert share == pytest.approx(0.25, rel=0.12), "a border pixel is a mixture with what lies beyond"
    assert set(labels.unique().tolist()) == {0, IGNORED}
    assert (views.movedim(1, -1)[labels == IGNORED] == 0).all()


def test_brightness_becomes_a_power_and_colours_get_a_factor() -> None:
    colours = torch.full((200, 3, 4, 4), 0.3)
    bright = colours_of(views_of(colours, gamma=2.0).images)[:, :, 0, 0]
    assert torch.allclose(bright, bright[:, :1].expand(-1, 3), atol=1e-5), "one power for all colours"
    powers = bright[:, 0].log() / torch.tensor(0.3).log()
    assert 0.5 - 1e-4 <= powers.min() < 0.55
    assert 1.9 < powers.max() <= 2 + 1e-4
    assert powers.log().mean().abs() < 0.1
    factors = colours_of(views_of(colours, gain=0.25).images)[:, :, 0, 0] / 0.3
    assert 0.75 - 1e-4 <= factors.min() < 0.77
    assert 1.23 < factors.max() <= 1.25 + 1e-4
    assert (factors[:, 0] - factors[:, 1]).abs().mean() > 0.05


def test_rectangles_of_another_view_are_pasted_with_what_they_show() -> None:
    count, height, width = 40, 40, 60
    levels = torch.linspace(0.1, 0.9, count)
    colours = levels.view(count, 1, 1, 1).expand(count, 3, height, width)
    views, labels = views_of(colours, paste=1.0)
    assert (labels == 0).all()
    seen = colours_of(views)[:, 0]
    pasted_into = 0
    for image, own in zip(seen, levels, strict=True):
        foreign = (image - own).abs() > 1e-3
        if not foreign.any():
            continue
        pasted_into += 1
        assert image[foreign].max() - image[foreign].min() < 1e-5, "one other image"
        for axis, side in ((0, height), (1, width)):
            extent = int(foreign.any(axis ^ 1).sum())
            assert side // 5 <= extent <= 2 * (side // 2)
    assert pasted_into == count
    half = colours_of(views_of(colours, paste=0.5).images)[:, 0].flatten(1)
    assert 10 <= int((half.amax(1) - half.amin(1) > 1e-3).sum()) <= 30
    alone = colours_of(views_of(colours[:1], paste=1.0).images)
    assert torch.allclose(alone, colours[:1], atol=1e-5), "nothing to paste"


def test_a_pasted_rectangle_brings_its_emptiness_along() -> None:
    views, labels = views_of(torch.full((8, 3, 40, 60), 0.5), scale=(0.5, 2.0), paste=1.0)
    assert ((views != 0).any(1) == (labels == 0)).all()


def test_labels_go_where_their_pixels_go() -> None:
    """Squares of 8 pixels, each of the colour of its label: away from their borders, colour still names the label."""
    torch.manual_seed(3)
    labels = torch.randint(1, 10, (12, 6, 9)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    colours = (labels / 10).unsqueeze(1).expand(-1, 3, -1, -1).float()
    views, moved = views_of(colours, labels=labels, flip=0.5, rotate=40.0, scale=(0.7, 2.0), paste=1.0)
    told = colours_of(views)[:, 0] * 10
    pure = (told - told.round()).abs() < 1e-3  # else a mixture of neighbours
    seen = pure & (moved != IGNORED)
    assert seen.float().mean() > 0.5
    assert (told.round().long() == moved)[seen].float().mean() > 0.99, "a mixture may look pure"
    assert torch.equal(moved == IGNORED, (views == 0).all(1))


def test_the_same_random_state_gives_the_same_views_and_the_batch_is_left_alone() -> None:
    colours = torch.rand(4, 3, 20, 30)
    strength = {"flip": 0.5, "rotate": 20.0, "scale": (0.6, 2.0), "gamma": 2.0, "gain": 0.25, "paste": 0.5}
    batch = Batch(normalised(colours), torch.zeros(4, 20, 30).long())
    before = batch.images.clone()
    make = StrongViews(NORMALISATION, **strength)  # type: ignore[arg-type]
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(make(batch, ignore_index=IGNORED))
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].labels, found[1].labels)
    assert not torch.equal(found[0].images, found[2].images)
    assert torch.equal(batch.images, before)


def test_what_has_no_label_is_not_shown() -> None:
    """The padding of a training crop, above all."""
    labels = torch.full((2, 10, 14), 3)
    labels[:, :, :4] = IGNORED
    views, seen = views_of(torch.rand(2, 3, 10, 14), labels=labels, flip=0.0)
    assert torch.equal(seen == IGNORED, labels == IGNORED)
    assert (views[..., :4] == 0).all()
    mirrored = views_of(torch.rand(2, 3, 10, 14), labels=labels, flip=1.0)
    assert torch.equal(mirrored.labels == IGNORED, (labels == IGNORED).flip(-1))


def test_rectangles_reach_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segdistill.data.views._whole", lambda low, high: high)
    half = torch.cat([torch.full((1, 3, 10, 14), 0.2), torch.full((1, 3, 10, 14), 0.8)])
    pasted = colours_of(views_of(half, paste=1.0).images)[0, 0] > 0.5
    assert torch.equal(pasted, (torch.arange(10) >= 5).unsqueeze(1) & (torch.arange(14) >= 7))
