"""What the losses of one step look at: the coarse grid against plain loops, and the discriminator's view of it."""

from itertools import product

import pytest
import torch
from torch import Tensor

from segdistill.losses.maps import StepMaps
from segdistill.models.discriminator import PixelDiscriminator

BATCH, CLASSES, HEIGHT, WIDTH, STRIDE = 2, 3, 16, 24, 4
GRID = (HEIGHT // STRIDE, WIDTH // STRIDE)


def make_labels(ignore_index: int = 255) -> Tensor:
    """Cell (0, 0) of image 0 and all but a pixel of cell (1, 1) ignored, and single pixels elsewhere."""
    rng = torch.Generator().manual_seed(8)
    labels = torch.randint(CLASSES, (BATCH, HEIGHT, WIDTH), generator=rng)
    labels[torch.rand(labels.shape, generator=rng) < 0.1] = ignore_index
    labels[0, :8, :8] = torch.randint(CLASSES, (8, 8), generator=rng)
    labels[0, :4, :4] = ignore_index
    labels[0, 4:8, 4:8] = ignore_index
    labels[0, 5, 7] = 1
    return labels


def random_maps(*shape: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()


def make_maps(labels: Tensor, *, ignore_index: int = 255) -> StepMaps:
    """One branch on the grid, a finer one, and features half as fine as the grid."""
    return StepMaps(
        images=random_maps(BATCH, 3, HEIGHT, WIDTH, seed=1).detach(),
        labels=labels,
        primary_logits=random_maps(BATCH, CLASSES, HEIGHT, WIDTH, seed=2),
        branch_logits={
            "on_grid": random_maps(BATCH, CLASSES, *GRID, seed=3),
            "finer": random_maps(BATCH, CLASSES, HEIGHT // 2, WIDTH // 2, seed=4),
        },
        features={
            name: random_maps(BATCH, 5, HEIGHT // 8, WIDTH // 8, seed=seed)
            for seed, name in enumerate(("primary", "on_grid", "finer"), 5)
        },
        ignore_index=ignore_index,
        grid_stride=STRIDE,
    )


def cell(maps: Tensor, b: int, y: int, x: int, stride: int = STRIDE) -> Tensor:
    """The pixels under one cell of maps (B, ..., H, W)."""
    return maps[b, ..., y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]


def plain_majority(labels: Tensor, b: int, y: int, x: int, stride: int) -> int | None:
    """The lowest of the most frequent valid labels, None if there is none."""
    pixels = [label for label in cell(labels, b, y, x, stride).flatten().tolist() if label < CLASSES]
    return min(set(pixels), key=lambda label: (-pixels.count(label), label)) if pixels else None


@pytest.mark.parametrize("ignore_index", [255, 11])
def test_grid_labels_are_the_majority_of_the_valid_pixels(ignore_index: int) -> None:
    labels = make_labels(ignore_index)
    maps = make_maps(labels, ignore_index=ignore_index)
    assert maps.grid_labels.shape == (BATCH, *GRID)
    assert maps.grid_labels[0, 0, 0] == ignore_index
    assert maps.grid_labels[0, 1, 1] == 1
    for b, y, x in product(range(BATCH), range(GRID[0]), range(GRID[1])):
        majority = plain_majority(labels, b, y, x, STRIDE)
        assert maps.grid_labels[b, y, x] == (ignore_index if majority is None else majority)


@pytest.mark.parametrize("ignore_index", [255, 11])
def test_feature_labels_have_the_features_size_and_only_cells_without_an_ignored_pixel(
    ignore_index: int,
) -> None:
    labels = torch.randint(CLASSES, (BATCH, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(9))
    labels[0, 7, 7], labels[1, 8, 23] = ignore_index, ignore_index
    maps = make_maps(labels, ignore_index=ignore_index)
    assert maps.feature_labels.shape == (BATCH, HEIGHT // 8, WIDTH // 8)
    for b, y, x in product(range(BATCH), range(HEIGHT // 8), range(WIDTH // 8)):
        whole = not cell(labels, b, y, x, 8).eq(ignore_index).any()
        assert whole == ((b, y, x) not in {(0, 0, 0), (1, 1, 2)})
        expected = plain_majority(labels, b, y, x, 8) if whole else ignore_index
        assert maps.feature_labels[b, y, x] == expected


def test_votes_are_counted_once_for_each_stride() -> None:
    maps = make_maps(make_labels())
    assert maps.votes(4) is maps.votes(4)
    assert maps.votes(4).shape == (BATCH, CLASSES, 4, 6)
    assert maps.votes(2).shape == (BATCH, CLASSES, 8, 12)
    assert maps.votes(4).sum() == maps.votes(2).sum() == (maps.labels != 255).sum()


def test_grid_logits_name_the_primary_first_and_leave_a_branch_on_the_grid_as_it_is() -> None:
    maps = make_maps(make_labels())
    assert list(maps.grid_logits) == ["primary", "on_grid", "finer"]
    assert maps.grid_logits["on_grid"] is maps.branch_logits["on_grid"]


def test_the_primary_is_pooled_over_valid_pixels() -> None:
    labels = make_labels()
    maps = make_maps(labels)
    for b, y, x in product(range(BATCH), range(GRID[0]), range(GRID[1])):
        kept = cell(maps.primary_logits, b, y, x)[:, cell(labels, b, y, x) != 255]  # (C, pixels)
        expected = kept.mean(1) if kept.numel() else torch.zeros(CLASSES, dtype=torch.float64)
        torch.testing.assert_close(maps.grid_logits["primary"][b, :, y, x], expected)


def test_a_finer_branch_is_pooled_over_cells_with_a_valid_pixel() -> None:
    labels = make_labels()
    maps = make_maps(labels)
    for b, y, x in product(range(BATCH), range(GRID[0]), range(GRID[1])):
        kept = [
            cell(maps.branch_logits["finer"], b, y, x, 2)[:, i, j]
            for i, j in product(range(2), range(2))
            if (cell(labels, b, 2 * y + i, 2 * x + j, 2) != 255).any()
        ]
        expected = sum(kept) / len(kept) if kept else torch.zeros(CLASSES, dtype=torch.float64)
        torch.testing.assert_close(maps.grid_logits["finer"][b, :, y, x], expected)
    # All but pixel (5, 7) of cell (1, 1) is ignored, so one of the branch's four cells there is left.
    torch.testing.assert_close(maps.grid_logits["finer"][0, :, 1, 1], maps.branch_logits["finer"][0, :, 2, 3])


def test_pooling_the_primary_gives_ignored_pixels_no_gradient() -> None:
    maps = make_maps(make_labels())
    maps.grid_logits["primary"].square().sum().backward()
    grad = maps.primary_logits.grad
    assert grad is not None
    ignored = (maps.labels == 255).unsqueeze(1).expand_as(grad)
    assert not grad[ignored].any()
    assert grad[~ignored].all()


def test_pooling_the_primary_does_not_see_ignored_pixels() -> None:
    maps, changed = make_maps(make_labels()), make_maps(make_labels())
    ignored = (maps.labels == 255).unsqueeze(1).expand_as(maps.primary_logits)
    changed.primary_logits.data[ignored] = 1e30
    assert torch.equal(changed.grid_logits["primary"], maps.grid_logits["primary"])


def test_grid_images_are_area_means() -> None:
    maps = make_maps(make_labels())
    for b, y, x in product(range(BATCH), range(GRID[0]), range(GRID[1])):
        torch.testing.assert_close(maps.judged.images[b, :, y, x], cell(maps.images, b, y, x).mean((1, 2)))


def test_softmax_maps_and_targets_are_ordered_by_sub_model() -> None:
    maps = make_maps(make_labels())
    assert maps.judged.probs.shape == (3 * BATCH, CLASSES, *GRID)
    torch.testing.assert_close(maps.judged.probs.sum(1), torch.ones(3 * BATCH, *GRID, dtype=torch.float64))
    for index, name in enumerate(("primary", "on_grid", "finer")):
        own = slice(index * BATCH, (index + 1) * BATCH)
        logits = maps.grid_logits[name]
        torch.testing.assert_close(maps.judged.probs[own], logits.exp() / logits.exp().sum(1, keepdim=True))
        assert torch.equal(maps.judged.targets[own], maps.grid_labels)


def test_real_probs_are_the_grid_labels_as_maps() -> None:
    # C = 3, e = 1/5: 4/5 at the label, 1/10 elsewhere, 0 where ignored.
    maps = make_maps(make_labels())
    real = maps.judged.real_probs(smoothing=0.2)
    for b, y, x in product(range(BATCH), range(GRID[0]), range(GRID[1])):
        label = int(maps.grid_labels[b, y, x])
        expected = [0.0 if label == 255 else 0.8 if c == label else 0.1 for c in range(CLASSES)]
        assert real[b, :, y, x].tolist() == pytest.approx(expected)


def test_the_discriminator_sees_every_map_beside_its_image_and_its_valid_cells() -> None:
    maps = make_maps(make_labels())
    seen: list[Tensor] = []

    def record(probs: Tensor, images: Tensor, valid: Tensor) -> Tensor:
        seen.extend((probs, images, valid))
        return probs[:, :1]

    maps.judged.judge(record, maps.judged.probs)
    probs, images, valid = seen
    assert probs is maps.judged.probs
    for n in range(3 * BATCH):
        assert torch.equal(images[n], maps.judged.images[n % BATCH])
        assert torch.equal(valid[n], maps.grid_labels[n % BATCH] != 255)


def test_nothing_is_made_before_it_is_asked_for() -> None:
    given = {"images", "labels", "primary_logits", "branch_logits", "features"}
    settings = {"ignore_index", "grid_stride", "_votes", "_means"}
    maps = make_maps(make_labels())
    assert set(vars(maps)) == given | settings
    assert maps.grid_logits is maps.grid_logits
    assert set(vars(maps)) == given | settings | {"grid_logits"}


def test_a_mean_of_logits_is_made_once_and_by_hand_the_same() -> None:
    maps = make_maps(make_labels())
    logits = maps.grid_logits
    names = list(logits)[:2]
    mean = maps.mean_logits(names)
    torch.testing.assert_close(mean, (logits[names[0]] + logits[names[1]]) / 2)
    assert not mean.requires_grad
    assert maps.mean_logits(names) is mean
    assert maps.mean_logits(list(logits)) is not mean


# ---- a real discriminator


def make_discriminator(outputs: int) -> PixelDiscriminator:
    """In double precision, and in evaluation so that spectral norm's estimate stands still."""
    torch.manual_seed(0)
    return PixelDiscriminator(num_classes=CLASSES, outputs=outputs, width=8).double().eval()


@pytest.mark.parametrize("outputs", [1, 3])
def test_maps_and_images_at_ignored_cells_do_not_change_the_verdict_on_their_neighbours(
    outputs: int,
) -> None:
    maps, discriminator = make_maps(make_labels()), make_discriminator(outputs)
    probs = maps.judged.probs.detach()
    verdict = maps.judged.judge(discriminator, probs)
    assert verdict.shape == (3 * BATCH, outputs, *GRID)

    hidden = probs.clone()
    hidden[::BATCH, :, 0, 0] = torch.tensor([1e6, -5.0, 0.0], dtype=torch.float64)
    assert torch.equal(maps.judged.judge(discriminator, hidden), verdict)
    other_images = make_maps(make_labels())
    other_images.images[0, :, :4, :4] = 1e6
    assert torch.equal(other_images.judged.judge(discriminator, probs), verdict)

    # The same change one cell further on, where labels are valid, is seen, at its neighbours too.
    shown = probs.clone()
    shown[::BATCH, :, 0, 1] = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert (maps.judged.judge(discriminator, shown) - verdict)[0, :, 0, 0].abs().min() > 1e-6


@pytest.mark.parametrize("outputs", [1, 3])
def test_maps_at_ignored_cells_get_no_gradient_from_the_discriminator(outputs: int) -> None:
    maps, discriminator = make_maps(make_labels()), make_discriminator(outputs)
    probs = maps.judged.probs.detach().requires_grad_()
    verdict = maps.judged.judge(discriminator, probs)
    grad = torch.autograd.grad(verdict[0, 0, 0, 1], probs, retain_graph=True)[0]  # beside the ignored cell
    assert not grad[0, :, 0, 0].any()
    assert grad[0, :, 0, 1].all()
    assert not grad[1:].any()  # other maps of the batch do not mix in
    grad = torch.autograd.grad(verdict.sum(), probs)[0]
    ignored = (maps.judged.targets == 255).unsqueeze(1).expand_as(grad)
    assert ignored.any()
    assert not grad[ignored].any()
    assert grad[~ignored].all()
