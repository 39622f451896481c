"""`segdistill predict` to the last file: by a run folder and an ONNX file, on images, folders and videos."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import full_disk
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from networks import NORMALISATION
from PIL import Image
from program import TINY, launch
from tiny_models import TAXONOMY, convolution, write_deployed, write_onnx

from segdistill.build.network import build_net
from segdistill.cli import main
from segdistill.commands import predict as predict_command
from segdistill.config import Config
from segdistill.config_io import dump_config
from segdistill.data.files import read_image, read_mask
from segdistill.data.transforms import EvalTransform
from segdistill.data.video import Video, write_video
from segdistill.export.onnx_file import OnnxFile
from segdistill.normalisation import Normalisation
from segdistill.report.overlay import legend_entries, with_legend
from segdistill.training.checkpoint import save_checkpoint

SIZE = (64, 96)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`: a run folder as a training leaves it, with random weights. `tiny.onnx`: a convolution."""
    folder = tmp_path_factory.mktemp("models")
    config = Config.model_validate(TINY)
    (folder / "run").mkdir()
    write_deployed(folder / "run" / "primary.safetensors", size=SIZE)
    (folder / "run" / "config.yaml").write_text(dump_config(config))
    module = build_net(config).state_dict()
    position = {"epoch": 2, "normalisation": tuple(NORMALISATION)}
    state = {"ema": None, "learner": {"module": module}, "position": position}
    save_checkpoint(folder / "run" / "checkpoints" / "last.pt", state=state, config="", versions={})
    write_onnx(folder / "tiny.onnx", convolution(), size=SIZE)
    return folder


def patches(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: coloured patches, which a network tells apart better than noise."""
    few = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, height: int = 50, width: int = 70, *, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches(height, width)).convert(mode).save(path)
    return path


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def predict(*arguments: str | Path, code: int = 0) -> None:
    assert main(["predict", *map(str, arguments)]) == code


def plain_logits(
    network: Callable[[torch.Tensor], torch.Tensor],
    image: np.ndarray,
    normalisation: Normalisation = NORMALISATION,
) -> torch.Tensor:
    """(H, W, 3) -> (C, H, W), by torch alone but for the resizing to the network's size, which is a multiple of 32."""
    pixels = EvalTransform(size=SIZE, normalisation=normalisation)(image).transpose(2, 0, 1)
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels.copy())[None])
    return F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)[0]


def assert_same_where_clear(mask: np.ndarray, logits: torch.Tensor) -> None:
    best = logits.sort(0, descending=True)
    clear = (best.values[0] - best.values[1] > 1e-5).numpy()
    assert clear.mean() > 0.98
    assert len(np.unique(mask)) > 1
    assert np.array_equal(mask[clear], best.indices[0].numpy()[clear])


# ---- images


@pytest.mark.training
def test_a_folder_as_users_do_it(models: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    save(source / "a.jpg", 50, 70)
    save(source / "a.png", 31, 33)
    save(source / "deep" / "er" / "b.TIFF", 3, 200, mode="L")
    save(source / ".trash" / "c.png")
    save(source / "._d.png")
    (source / "notes.txt").write_text("no image, and no problem")
    out, err = launch("predict", models / "run", source, "--out", tmp_path / "out", cwd=tmp_path)
    assert written(tmp_path / "out") == {
        "a.jpg_mask.png",
        "a.jpg_overlay.jpg",
        "a.png_mask.png",
        "a.png_overlay.jpg",
        "deep/er/b_mask.png",
        "deep/er/b_overlay.jpg",
    }
    assert read_mask(tmp_path / "out" / "a.png_mask.png").shape == (31, 33)
    assert read_mask(tmp_path / "out" / "deep" / "er" / "b_mask.png").shape == (3, 200)
    assert err == ""
    (line,) = out.splitlines()
    assert line.startswith(f"3 images by {models / 'run'} (primary) -> {tmp_path / 'out'}")
    assert "ms per image" in line


def test_a_run_folder_by_hand(models: Path, tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", 90, 131))
    predict(models / "run", tmp_path / "a.png", "--out", tmp_path / "out")
    network = write_deployed(tmp_path / "again.safetensors", size=SIZE)
    assert_same_where_clear(read_mask(tmp_path / "out" / "a_mask.png"), plain_logits(network, image))


def test_a_branch_comes_out_of_the_checkpoint(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = read_image(save(tmp_path / "a.png", 90, 131))
    predict(models / "run", tmp_path / "a.png", "--stream", "branch3", "--out", tmp_path / "out")
    assert "(branch3, last epoch so far (2 of 3))" in capsys.readouterr().out
    net = build_net(Config.model_validate(TINY)).eval()

    def branch(images: torch.Tensor) -> torch.Tensor:
        return F.interpolate(net(images).branches["branch3"], size=SIZE, mode="bilinear", align_corners=False)

    mask = read_mask(tmp_path / "out" / "a_mask.png")
    assert_same_where_clear(mask, plain_logits(branch, image, NORMALISATION))


def test_an_onnx_file_by_hand(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = read_image(save(tmp_path / "a.png", 90, 131))
    predict(models / "tiny.onnx", tmp_path / "a.png", "--stream", "primary", "--out", tmp_path / "out")
    mask = read_mask(tmp_path / "out" / "a_mask.png")
    assert_same_where_clear(mask, plain_logits(convolution(), image))
    palette = np.asarray(Image.open(tmp_path / "out" / "a_mask.png").convert("RGB"))
    assert np.array_equal(palette, TAXONOMY.colourise(mask))
    assert capsys.readouterr().out.startswith(f"1 image by {models / 'tiny.onnx'} (primary) -> ")


def test_overlays_blend_at_the_opacity_asked_for(models: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", 96, 144)
    image = read_image(tmp_path / "a.png").astype(float)
    arguments = (models / "tiny.onnx", tmp_path / "a.png", "--no-legend", "--opacity")
    for opacity in (0.0, 0.25, 1.0):
        predict(*arguments, opacity, "--out", tmp_path / "out")
        painted = TAXONOMY.colourise(read_mask(tmp_path / "out" / "a_mask.png"))
        overlay = read_image(tmp_path / "out" / "a_overlay.jpg")
        assert overlay.shape == image.shape, "no legend"
        difference = np.abs(overlay - (opacity * painted + (1 - opacity) * image)).max(2)
        assert np.median(difference) <= 3, "JPEG's noise, and outlines here and there"


def test_the_legend_stands_below(models: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", 96, 400)
    predict(models / "tiny.onnx", tmp_path / "a.png", "--out", tmp_path / "out")
    overlay = read_image(tmp_path / "out" / "a_overlay.jpg")
    assert overlay.shape[0] > 96
    assert overlay.shape[1] == 400
    assert overlay[-3:].min() > 250, "its margin"


def test_class_names_that_no_font_can_write_are_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_command, "boxes_in_words", lambda names: f"no font for {names[0]}")
    save(tmp_path / "a.png", 96, 144)
    for options, told in (((), f"no font for {TAXONOMY.names[0]}\n"), (("--no-legend",), "")):
        predict(models / "tiny.onnx", tmp_path / "a.png", "--out", tmp_path / "out", *options)
        assert capsys.readouterr().out.startswith(f"{told}1 image by ")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_every_mode(models: Path, tmp_path: Path, mode: str) -> None:
    save(tmp_path / "a.tif", mode=mode)
    predict(models / "tiny.onnx", tmp_path / "a.tif", "--out", tmp_path / "out")
    assert read_mask(tmp_path / "out" / "a_mask.png").shape == (50, 70)


def test_masks_have_the_stored_orientation_and_other_ones_are_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(patches(50, 70)).save(tmp_path / "a.jpg", exif=exif)
    predict(models / "tiny.onnx", tmp_path / "a.jpg", "--no-legend", "--out", tmp_path / "out")
    assert read_mask(tmp_path / "out" / "a_mask.png").shape == (50, 70)
    assert read_image(tmp_path / "out" / "a_overlay.jpg").shape == (50, 70, 3)
    told = capsys.readouterr().out
    assert f"viewers turn or mirror 1 image by their EXIF tag, e.g. {tmp_path / 'a.jpg'}" in told
    assert "Save them upright" in told
    save(tmp_path / "b.png")
    predict(models / "tiny.onnx", tmp_path / "b.png", "--out", tmp_path / "out")
    assert "EXIF" not in capsys.readouterr().out


@pytest.mark.parametrize(("top", "told"), [(4095, True), (65535, False)])
def test_images_of_16_bits_that_use_few_of_them_are_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], top: int, told: bool
) -> None:
    for name in "ab":
        cv2.imwrite(
            str(tmp_path / f"{name}.png"), np.linspace(0, top, 3500).reshape(50, 70).astype(np.uint16)
        )
    predict(models / "tiny.onnx", tmp_path, "--out", tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert ("images of 16 bits (2) go up to 15 of 255 in their upper 8 bits" in printed) == told


def test_what_jpeg_cannot_hold_becomes_png(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.png", 2, 65501)
    predict(models / "tiny.onnx", tmp_path / "a.png", "--out", tmp_path / "out")
    assert written(tmp_path / "out") == {"a_mask.png", "a_overlay.png"}
    assert "*_mask.png and *_overlay.png, " in capsys.readouterr().out
    assert read_image(tmp_path / "out" / "a_overlay.png").shape[1] == 65501


def test_a_bad_image_does_not_stop_the_others(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    save(source / "a.png")
    save(source / "d.png")
    (source / "b.png").write_bytes((source / "a.png").read_bytes()[:200])
    (source / "c.jpg").write_text("no image")
    save(source / f"{'c' * 250}.png")
    predict(models / "tiny.onnx", source, "--out", tmp_path / "out", code=2)
    assert written(tmp_path / "out") == {"a_mask.png", "a_overlay.jpg", "d_mask.png", "d_overlay.jpg"}
    told = capsys.readouterr()
    assert told.out.startswith("2 images by ")
    first, *others = told.err.splitlines()
    assert first == "error: 3 of 5 images could not be segmented:"
    bad = ("b.png", "c.jpg", f"{'c' * 250}.png")
    assert [line.split(":")[0] for line in others] == [f"  {source / name}" for name in bad]
    assert "too long a name" in others[-1]


def test_one_result_that_cannot_be_written_does_not_stop_the_others(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    long = "c" * 244  # fits with _mask.png, not with _overlay.jpg
    for name in ("a", "b", "deep/c", "e", long):
        save(source / f"{name}.png")
    (out / "a_mask.png").mkdir(parents=True)
    (out / "deep").touch()

    replace = os.replace

    def guarded(source: Path, target: Path) -> None:
        if Path(target).name == "b_mask.png":  # the second of two
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        replace(source, target)

    monkeypatch.setattr(os, "replace", guarded)
    predict(models / "tiny.onnx", source, "--out", out, code=2)
    told = capsys.readouterr()
    assert told.out.startswith("1 image by ")
    assert [line.split(":")[0] for line in told.err.splitlines()] == [
        "error",
        *(f"  {source / name}.png" for name in ("a", "b", long, "deep/c")),
    ]
    assert (
        f"its results {out / 'a'}_* cannot be written: Is a directory; remove what is in their way"
        in told.err
    )
    assert written(out) == {"deep", "e_mask.png", "e_overlay.jpg"}, "no half of a result"


def test_a_full_disk_ends_it_at_once(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        save(tmp_path / "photos" / f"{name}.png")
    with full_disk.files_of_at_most(100):
        predict(models / "tiny.onnx", tmp_path / "photos", "--out", tmp_path / "out", code=2)
    assert "is the disk full?" in capsys.readouterr().err
    assert written(tmp_path / "out") == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_prediction_leaves_nothing_half_written(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handled: Callable[[signal.Signals], Any],
    number: signal.Signals,
) -> None:
    save(tmp_path / "a.png")
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), number))
    before = handled(number)
    predict(models / "tiny.onnx", tmp_path / "a.png", "--out", tmp_path / "out", code=130)
    assert signal.getsignal(number) is before, "as it was"
    assert written(tmp_path / "out") == set()


def test_a_prediction_terminated_between_its_files_leaves_neither(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take away what an earlier one has left."""
    save(tmp_path / "a.png")
    out = tmp_path / "out"
    write = Path.write_bytes

    def stopped(path: Path, data: bytes) -> int:
        if path.name.startswith(".a_mask"):
            os.kill(os.getpid(), signal.SIGTERM)
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", stopped)
        predict(models / "tiny.onnx", tmp_path / "a.png", "--out", out, code=130)
    assert written(out) == set()
    predict(models / "tiny.onnx", tmp_path / "a.png", "--out", out, "--no-legend")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", stopped)
        predict(models / "tiny.onnx", tmp_path / "a.png", "--out", out, code=130)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    predict(models / "tiny.onnx", tmp_path / "a.png", "--out", out)
    assert {path: path.read_bytes() for path in out.iterdir()} != before, "replaced"


def test_results_of_earlier_predictions_are_no_images(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "photos" / "a.png")
    save(tmp_path / "photos" / "b_mask.png")  # a photo that is called so
    for out in ("photos/first", "photos/second", "third"):
        predict(models / "tiny.onnx", tmp_path / "photos", "--out", tmp_path / out)
        names = {f"{name}_{what}" for name in ("a", "b_mask") for what in ("mask.png", "overlay.jpg")}
        assert written(tmp_path / out) == names
    assert "8 files in " in capsys.readouterr().out


def test_a_folder_of_videos_is_told(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.avi", 1, height=32, width=32)
    predict(models / "tiny.onnx", tmp_path / "clips", "--out", tmp_path / "out", code=2)
    assert "give its videos one at a time" in capsys.readouterr().err


def test_a_name_that_just_fits_and_brackets_that_are_no_markup(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem, out = "c" * 243, tmp_path / "out [/final]"  # 255 signs with _overlay.jpg
    save(tmp_path / f"{stem}.png")
    predict(models / "tiny.onnx", tmp_path / f"{stem}.png", "--out", out)
    assert written(out) == {f"{stem}_mask.png", f"{stem}_overlay.jpg"}
    assert f"-> {out}: *_mask.png" in capsys.readouterr().out.replace("\n", "")


def test_results_inside_the_source_are_no_images_of_it(models: Path, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png")
    for _ in range(2):
        predict(models / "tiny.onnx", tmp_path / "photos", "--out", tmp_path / "photos" / "out")
        assert written(tmp_path / "photos") == {"a.png", "out/a_mask.png", "out/a_overlay.jpg"}


def test_results_may_lie_above_the_source_but_not_fall_back_into_it(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.png")
    save(photos / "deep" / "b.png")
    for _ in range(2):
        predict(models / "tiny.onnx", photos, "--out", tmp_path)
        assert written(photos) == {"a.png", "deep/b.png"}
        assert {"a_mask.png", "a_overlay.jpg", "deep/b_mask.png", "deep/b_overlay.jpg"} <= written(tmp_path)
    save(photos / "photos" / "c.png")
    capsys.readouterr()
    predict(models / "tiny.onnx", photos, "--out", tmp_path, code=2)
    told = capsys.readouterr().err
    assert f"--out {tmp_path}: the results of {photos / 'photos' / 'c.png'} would lie in {photos}" in told
    assert written(photos) == {"a.png", "deep/b.png", "photos/c.png"}


# ---- videos


def write_clip(path: Path, count: int, *, height: int, width: int, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12.5, (width, height))
    for place in range(count):
        writer.write(np.roll(patches(height, width), 3 * place, axis=1)[..., ::-1])
    writer.release()
    return path


def test_a_video_whose_name_looks_like_a_protocol(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a:b.avi", 1, height=32, width=32)
    predict(models / "tiny.onnx", Path("a:b.avi"), "--out", tmp_path / "out")
    assert written(tmp_path / "out") == {"a:b_overlay.mp4"}


def test_a_video(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.avi", 6, height=96, width=400)
    save(tmp_path / "out" / "clip_masks" / "000006.png", mode="L")
    (tmp_path / "out" / "clip_overlay.mp4").touch()  # of a longer video, predicted before
    predict(models / "tiny.onnx", clip, "--frame-masks", "--out", tmp_path / "out")
    masks = [f"clip_masks/{place:06}.png" for place in range(6)]
    assert written(tmp_path / "out") == {"clip_overlay.mp4", *masks}, "nothing of the longer video"
    overlay = Video(tmp_path / "out" / "clip_overlay.mp4")
    assert overlay.fps == pytest.approx(12.5)
    frames = list(overlay.frames())
    assert len(frames) == 6
    assert {frame.shape[1] for frame in frames} == {400}
    assert len({frame.shape for frame in frames}) == 1
    assert frames[0].shape[0] > 96
    file = OnnxFile(models / "tiny.onnx")
    for place, (source, frame) in enumerate(zip(Video(clip).frames(), frames, strict=True)):
        mask = read_mask(tmp_path / "out" / masks[place])
        assert np.array_equal(mask, file.predict(source).classes)
        blended = 0.5 * source + 0.5 * TAXONOMY.colourise(mask)
        assert np.median(np.abs(frame[:96] - blended)) <= 8, "the codec's noise"
    out = capsys.readouterr().out
    assert out.startswith("6 frames by ")
    assert "could be decoded" not in out


def test_a_video_that_is_terminated_leaves_an_earlier_result_as_it_was(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, out = write_clip(tmp_path / "clip.avi", 4, height=64, width=64), tmp_path / "out"
    predict(models / "tiny.onnx", clip, "--frame-masks", "--out", out)
    before = {name: (out / name).read_bytes() for name in written(out)}
    shown: list[np.ndarray] = []

    def stopped(frame: np.ndarray, *rest: Any, **named: Any) -> np.ndarray:
        shown.append(frame)
        if len(shown) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return frame

    monkeypatch.setattr(predict_command, "_overlay", stopped)
    write_clip(clip, 6, height=32, width=64)
    predict(models / "tiny.onnx", clip, "--frame-masks", "--out", out, code=130)
    assert {name: (out / name).read_bytes() for name in written(out)} == before


def test_the_legend_of_a_video_has_room_for_every_class(models: Path, tmp_path: Path) -> None:
    grey = np.full((96, 128, 3), 128, np.uint8)
    write_video(tmp_path / "clip.mp4", [grey, grey], fps=25)
    assert len(np.unique(OnnxFile(models / "tiny.onnx").predict(grey).classes)) < 3
    predict(models / "tiny.onnx", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    frames = list(Video(tmp_path / "out" / "clip_overlay.mp4").frames())
    entries = legend_entries(np.zeros((1, 1), np.uint8), TAXONOMY.names, TAXONOMY.colours)
    height, width = with_legend(grey, entries).shape[:2]
    assert {frame.shape for frame in frames} == {(height + height % 2, width + width % 2, 3)}


def test_a_video_without_legend_keeps_its_size_but_for_odd_sides(models: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    jpegs = [cv2.imencode(".jpg", patches(47, 63, seed=seed))[1].tobytes() for seed in range(4)]
    clip.write_bytes(b"".join(jpegs))  # without a header: nobody knows how many frames there are
    predict(models / "tiny.onnx", clip, "--no-legend", "--out", tmp_path / "out")
    assert written(tmp_path / "out") == {"clip_overlay.mp4"}
    frames = list(Video(tmp_path / "out" / "clip_overlay.mp4").frames())
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4


def test_a_video_that_breaks_off(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 10, height=96, width=128)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    predict(models / "tiny.onnx", clip, "--out", tmp_path / "out")
    count = len(list(Video(tmp_path / "out" / "clip_overlay.mp4").frames()))
    assert 2 <= count < 10
    assert f"has 10 frames; only {count} could be decoded" in capsys.readouterr().out


# ---- mistakes


def test_mistakes_are_told_in_one_message_with_exit_code_2(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = save(tmp_path / "photos" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "other.onnx").write_text("no network")
    foreign = onnx.load(str(models / "tiny.onnx"))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    Image.fromarray(patches(8, 8)[..., 0].astype(np.float32)).save(tmp_path / "deep.tif")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(models / "run" / "config.yaml", unfinished)
    tiny, good = models / "tiny.onnx", models / "run"
    mistakes: list[tuple[list[str | Path], list[str]]] = [
        ([tiny, tmp_path / "nowhere"], ["nowhere: no such image, folder or video"]),
        ([tiny, tmp_path / "notes.txt"], ["notes.txt: neither an image (jpg ", "nor a video (mp4 "]),
        ([tiny, tmp_path / "empty"], ["empty: no image (jpg "]),
        ([tiny, tmp_path / "text.png"], ["text.png: not an image"]),
        ([tiny, tmp_path / "deep.tif"], ["deep.tif: pixels of 32 bits"]),
        ([tiny, tmp_path / "text.mp4"], ["text.mp4: not a video, damaged"]),
        ([tiny, photo, "--out", tmp_path / "file"], ["--out", "file cannot be written: ", "name a folder"]),
        ([tiny, photo, "--out", tmp_path / "photos"], ["is the folder of the source; choose another"]),
        ([tiny, photo.parent, "--out", tmp_path / "empty" / ".." / "photos"], ["the folder of the source"]),
        (
            [tiny, photo, "--frame-masks"],
            ["--frame-masks writes the masks of a video's", "a.png is no video"],
        ),
        ([tiny, photo.parent, "--frame-masks"], ["photos is no video (mp4 ", "every image gets its mask"]),
        ([tiny, photo, "--stream", "branch3"], ["tiny.onnx holds the stream 'primary' and not 'branch3'"]),
        ([tmp_path / "missing.onnx", photo], ["missing.onnx: no such file"]),
        ([tmp_path / "other.onnx", photo], ["other.onnx: ONNX Runtime cannot load it"]),
        ([tmp_path / "foreign.onnx", photo], ["foreign.onnx was not exported by segdistill"]),
        ([tmp_path / "missing", photo], ["missing is not the folder of a run"]),
        ([tmp_path / "empty", photo], ["empty is not the folder of a run"]),
        ([good / "primary.safetensors", photo], ["is neither the folder of a run nor an ONNX file"]),
        ([unfinished, photo], ["has no primary.safetensors", "--resume"]),
        ([unfinished, photo, "--stream", "branch3"], ["there is no checkpoint"]),
        ([good, photo, "--stream", "branch9"], ["'branch9'; it has primary, branch3, branch4, ensemble"]),
    ]
    for arguments, words in mistakes:
        where = [] if "--out" in arguments else ["--out", tmp_path / "out"]
        predict(*arguments, *where, code=2)
        told = capfd.readouterr()
        assert told.err.startswith("error: "), arguments
        assert told.err.count("\n") == 1, told.err
        for word in words:
            assert word in told.err
        assert not (tmp_path / "out").exists(), "nothing was begun"


@pytest.mark.parametrize("opacity", ["1.1", "-0.1", "half", "nan"])
def test_an_opacity_that_is_none(opacity: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["predict", "run", "photo.png", "--out", "out", f"--opacity={opacity}"])
    assert exit_info.value.code == 2
    assert f"'{opacity}' should be a number from 0 to 1" in capsys.readouterr().err
