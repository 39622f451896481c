"""The synthetic streets: pure, independent scenes that look like the data set they stand in for."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from segdistill.data.samples import LabelledImage, Samples
from segdistill.data.street.labels import BUILDING, ROAD, SKY
from segdistill.data.street.plan import LEFT, RIGHT
from segdistill.data.street.scene import Scene
from segdistill.data.street.walls import facade, paint_wall
from segdistill.data.synthetic import SyntheticStreets, render_scene
from segdistill.data.taxonomy import CAMVID

HEIGHT, WIDTH = 60, 80  # statistics do not need more


def streets(split: str = "train", length: int = 40, seed: int = 3) -> SyntheticStreets:
    return SyntheticStreets(split=split, length=length, height=HEIGHT, width=WIDTH, seed=seed)


def digest(sample: LabelledImage) -> str:
    return hashlib.sha256(sample.image.tobytes() + sample.mask.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    """(40, H, W) uint8."""
    source = streets()
    return np.stack([source.load(i).mask for i in range(len(source))])


def test_offers_the_interface_of_samples() -> None:
    source: Samples = streets(length=5)
    assert (len(source), source.name(12), source.taxonomy) == (5, "train_00012", CAMVID)


@pytest.mark.parametrize(("height", "width"), [(120, 160), (61, 83), (33, 97), (90, 40)])
def test_the_size_is_honoured(height: int, width: int) -> None:
    image, mask = render_scene(seed=0, index=1, height=height, width=width)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((height, width), np.uint8)


def test_another_size_shows_the_same_street() -> None:
    small = render_scene(seed=0, index=2, height=60, width=80).mask
    large = render_scene(seed=0, index=2, height=180, width=240).mask
    # Thin poles keep a width of one pixel, and outlines move by half a pixel: all else agrees.
    assert (cv2.resize(large, (80, 60), interpolation=cv2.INTER_NEAREST) == small).mean() > 0.85


def test_equal_in_a_fresh_process() -> None:
    program = (
        "import hashlib; from segdistill.data.synthetic import render_scene\n"
        "for i in range(4):\n"
        "    s = render_scene(seed=5, split='val', index=i, height=60, width=80)\n"
        "    print(hashlib.sha256(s.image.tobytes() + s.mask.tobytes()).hexdigest())\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [digest(streets("val", seed=5).load(i)) for i in range(4)]


def test_equal_in_any_order_and_in_threads() -> None:
    source = streets()
    forwards = [digest(source.load(i)) for i in range(12)]
    assert [digest(source.load(i)) for i in reversed(range(12))] == forwards[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: digest(source.load(i)), range(12))) == forwards


def test_a_scene_does_not_depend_on_the_length() -> None:
    assert digest(streets(length=2).load(1)) == digest(streets(length=1000).load(1))


def test_no_scene_occurs_twice_across_splits_indexes_and_seeds() -> None:
    scenes = [
        digest(streets(split, seed=seed).load(i))
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for i in range(4)
    ]
    assert len(set(scenes)) == len(scenes)


def test_masks_hold_classes_or_void_only(masks: np.ndarray) -> None:
    assert set(np.unique(masks)) == set(CAMVID.allowed_values())


def test_class_shares_are_those_of_a_street(masks: np.ndarray) -> None:
    """CamVid's shares in percent, about halved and doubled; rare classes vary more from street to street."""
    bounds = {
        "sky": (9, 30),
        "building": (12, 40),
        "pole": (0.5, 3),
        "road": (18, 45),
        "pavement": (3, 12),
        "tree": (4, 18),
        "sign symbol": (0.3, 2),
        "fence": (0.5, 5),
        "car": (2, 10),
        "pedestrian": (0.3, 2),
        "bicyclist": (0.15, 2),
    }
    shares = np.bincount(masks.ravel(), minlength=12) / masks.size * 100
    for name, share in zip(CAMVID.names, shares, strict=False):
        low, high = bounds[name]
        assert low < share < high, (name, share)
    assert 1 < shares[CAMVID.ignore_index] < 4, "void is a small part of a well labelled street"


def test_sky_is_above_road(masks: np.ndarray) -> None:
    rows = np.arange(HEIGHT)[:, None]
    lowest_sky = np.where(masks == SKY, rows, -1).max(axis=1)  # (40, W)
    highest_road = np.where(masks == ROAD, rows, HEIGHT).min(axis=1)
    # A winter tree or a fence never shows sky below the horizon: the whole ground is painted.
    assert (lowest_sky < highest_road).mean() > 0.99


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_a_wall_fills_the_outline_of_its_projection(side: int) -> None:
    """Drawn column by column in perspective, it agrees with the polygon between its four corners."""
    scene = Scene.empty(np.random.default_rng(0), 240, 320)
    x, near, far, height = side * 5.0, 16.0, 60.0, 4.0
    ends = (x, near), (x, far)
    paint_wall(scene, *ends, height_m=height, texture=facade(scene), facing_x=-side, label=BUILDING)
    corners = [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)]
    outline = np.zeros_like(scene.mask)
    cv2.fillPoly(outline, [np.rint(scene.camera.project(np.array(corners))).astype(np.int32)], (1,))
    wall, square = (scene.mask == BUILDING).astype(np.uint8), np.ones((3, 3), np.uint8)
    assert wall.sum() > 4000
    assert (cv2.erode(outline, square) <= wall).all(), "but for a pixel at the edge it covers the outline"
    assert (wall <= cv2.dilate(outline, square)).all()
    assert scene.image[wall == 0].max() == 0, "nothing is painted beside the wall"


def test_the_ground_is_where_the_camera_sees_it() -> None:
    """`Camera.ground` inverts `Camera.pixel`."""
    camera = Scene.empty(np.random.default_rng(0), HEIGHT, WIDTH).camera
    rows, columns = np.arange(90, 120), np.arange(160)
    x, z = camera.ground(rows, columns)
    u, v = camera.pixel(x, np.zeros_like(x), z)
    np.testing.assert_allclose(u - 0.5, np.broadcast_to(columns, x.shape), atol=1e-3)
    np.testing.assert_allclose(v - 0.5, np.broadcast_to(rows[:, None], x.shape), atol=1e-3)


def test_colour_does_not_give_the_class_away(masks: np.ndarray) -> None:
    """The nearest class mean in RGB, fitted on other scenes, is far from solving the task."""
    train = [streets().load(i) for i in range(12)]
    test = [streets("test").load(i) for i in range(6)]
    colours = np.concatenate([s.image.reshape(-1, 3) for s in train]).astype(np.float32)
    labels = np.concatenate([s.mask.ravel() for s in train])
    means = np.stack([colours[labels == c].mean(axis=0) for c in range(CAMVID.num_classes)])
    pixels = np.concatenate([s.image.reshape(-1, 3) for s in test]).astype(np.float32)
    guess = ((pixels[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    truth = np.concatenate([s.mask.ravel() for s in test])
    assert (guess == truth)[truth != CAMVID.ignore_index].mean() < 0.5
