"""The program as users start it, on tiny data, to the last file."""

import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import segmentation_models_pytorch as smp
import torch
from program import TINY, launch, run, start, write_config
from safetensors import safe_open
from safetensors.torch import load_file

from segdistill.build.training import build_fabric, build_state
from segdistill.commands import checked_export
from segdistill.commands.resuming import go_on
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.train import say_what_runs
from segdistill.config_io import load_config
from segdistill.console import new_console
from segdistill.resolution import pad_to_multiple

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    write_config(folder / "tiny.yaml")
    return folder


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    """One uninterrupted run: `runs/tiny`, the default folder."""
    out, _ = launch("train", "tiny.yaml", cwd=workplace)
    assert "mIoU" in out
    return workplace / "runs" / "tiny"


def test_a_run_folder_holds_what_is_promised(finished: Path) -> None:
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    promised = {
        "config.yaml",
        "metrics.jsonl",
        "summary.json",
        "images_train.txt",
        "images_val.txt",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "primary.safetensors",
        "primary.onnx",
    }
    assert promised <= files
    assert all(name in promised or name.startswith("tensorboard/") for name in files), "nothing else is left"
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_summary_agrees_with_the_last_epoch_and_counts_what_is_deployed(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert summary["miou"] == last["val"]["miou"]
    assert set(summary["miou"]["branches"]) == {"branch3", "branch4"}
    assert summary["iou"] == last["val"]["iou"]
    plain = smp.create_model("unet", TINY["model"]["encoder"], encoder_weights=None, classes=11, **OPTIONS)
    assert summary["parameters"] == sum(p.numel() for p in plain.parameters())
    assert summary["macs"] > 0
    assert summary["steps"] == 9
    assert summary["seed"] == 0
    assert summary["protocol"]["split"] == "val"
    assert summary["protocol"]["images"] == 5
    assert summary["data"]["training_images"] == 14
    assert summary["onnx"]["max_logit_difference"] <= 1e-4
    assert summary["versions"]["torch"] == importlib.metadata.version("torch")


OPTIONS: dict[str, Any] = TINY["model"]["options"]  # type: ignore[index]


def test_primary_safetensors_is_a_plain_smp_model(finished: Path) -> None:
    path = finished / "primary.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    plain = smp.create_model(metadata["arch"], **metadata["keywords"])
    plain.load_state_dict(load_file(path), strict=True)
    checkpoint = torch.load(finished / "checkpoints" / "last.pt", weights_only=True)
    trained = checkpoint["state"]["learner"]["module"]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, trained[f"primary.{name}"]), name
    lines = (Path(__file__).parents[1] / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(import json, .*?)```", lines, re.S)
    names: dict[str, Any] = {}
    exec(snippet.replace("runs/camvid_unet/primary.safetensors", str(path)), names)
    images = torch.randn(2, 3, 40, 52, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain.eval()(pad_to_multiple(images, 32))[..., :40, :52]
        torch.testing.assert_close(names["logits_of"](images), expected)
    assert metadata["class_names"][0] == "sky"
    assert metadata["mean"] == pytest.approx([0.485, 0.456, 0.406]), "random weights: ImageNet's statistics"


def test_parallel_convolutions_are_one_each_in_the_file(workplace: Path) -> None:
    run("train", "tiny.yaml", "out=many", "train.epochs=1", "method.reparam.copies=1", cwd=workplace)
    folder = workplace / "many"
    summary = json.loads((folder / "summary.json").read_text())
    plain = smp.create_model("unet", TINY["model"]["encoder"], encoder_weights=None, classes=11, **OPTIONS)
    plain.load_state_dict(load_file(folder / "primary.safetensors"), strict=True)
    assert summary["parameters"] == sum(p.numel() for p in plain.parameters())
    assert summary["onnx"]["max_logit_difference"] <= 1e-4
    # The run scored the network that it trained, this scores the merged one: equal up to rounding.
    run("evaluate", folder, cwd=workplace)
    scores = json.loads((folder / "evaluation_val_deployed.json").read_text())
    assert scores["miou"]["primary"] == pytest.approx(summary["miou"]["primary"], abs=1e-3)
    branch = folder / "branch3.onnx"
    run("export", folder, "--stream", "branch3", "--out", branch, cwd=workplace)
    tensors = {one.name for one in onnx.load(branch).graph.initializer}
    assert any("encoder" in name for name in tensors)
    assert not any(".convs." in name for name in tensors), "a branch's encoder is the merged one, too"


def test_an_epoch_to_keep_that_is_over_is_told(workplace: Path) -> None:
    config = load_config(workplace / "tiny.yaml", ("train.keep_epochs=[1,2,3]",))
    state = build_state(config, build_fabric(config), total_steps=1)
    go_on(RunFolder(workplace / "over"), config, state, None, data_hash="")
    state.position.epoch = 2
    said = io.StringIO()
    say_what_runs(config, state, console=new_console(file=said), images=(14, 5))
    assert "too late for epoch 1, which is over" in said.getvalue()


def test_a_setting_without_effect_is_told_before_the_training(workplace: Path) -> None:
    said = io.StringIO()
    settings = ("method.kind=deep_supervision", "method.reparam.copies=1")
    config = load_config(workplace / "tiny.yaml", settings)
    state = build_state(config, build_fabric(config), total_steps=1)
    go_on(RunFolder(workplace / "idle"), config, state, None, data_hash="")

    say_what_runs(config, state, console=new_console(file=said), images=(14, 5))

    told = next(line for line in said.getvalue().splitlines() if line.startswith("without effect"))
    assert "method.kind=deep_supervision" in told
    assert "method.reparam.copies=1" in told


def test_a_precision_that_is_imitated_is_told_before_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    said = io.StringIO()
    config = load_config(workplace / "tiny.yaml", ("train.precision=bf16-mixed", "train.accelerator=cpu"))
    state = build_state(config, build_fabric(config), total_steps=1)
    go_on(RunFolder(workplace / "imitated"), config, state, None, data_hash="")

    say_what_runs(config, state, console=new_console(file=said), images=(14, 5))

    assert "no bfloat16 instructions" in " ".join(said.getvalue().split())


def test_evaluate_repeats_the_runs_own_score_from_the_deployed_file(finished: Path, workplace: Path) -> None:
    out, _ = run("evaluate", finished, "--split", "val", cwd=workplace)
    scores = json.loads((finished / "evaluation_val_deployed.json").read_text())
    summary = json.loads((finished / "summary.json").read_text())
    assert scores["miou"]["primary"] == summary["miou"]["primary"]
    assert scores["streams"]["primary"]["pixel_accuracy"] == summary["pixel_accuracy"]
    for word in ("sky", "bicyclist", "mIoU", "pixel accuracy"):
        assert word in out


def test_evaluate_scores_branches_and_ensemble_of_a_checkpoint(finished: Path, workplace: Path) -> None:
    target = workplace / "last.json"
    run("evaluate", finished, "--weights", "last", "--out", target, cwd=workplace)
    scores = json.loads(target.read_text())
    assert scores["miou"] == json.loads((finished / "summary.json").read_text())["miou"]


def test_export_makes_the_onnx_file_again(finished: Path, workplace: Path) -> None:
    target = workplace / "again.onnx"
    out, _ = run("export", finished, "--out", target, cwd=workplace)
    assert onnx.load(str(target)).graph == onnx.load(str(finished / "primary.onnx")).graph
    assert "ONNX Runtime" in out
    assert {path.name for path in workplace.glob("*.onnx*")} | {
        path.name for path in workplace.glob(".*onnx*")
    } == {"again.onnx"}, "one file, nothing beside it"


def test_a_killed_run_resumes_to_the_bit_equal_end(finished: Path, workplace: Path) -> None:
    arguments = ("tiny.yaml", "out=killed", "train.checkpoint_minutes=0.0001")
    process = start("train", *arguments, cwd=workplace)
    last = workplace / "killed" / "checkpoints" / "last.pt"
    deadline, seen = time.monotonic() + 240, 0
    while time.monotonic() < deadline:
        if last.exists() and last.stat().st_mtime_ns != seen:
            process.send_signal(signal.SIGSTOP)  # while we look it could reach its end
            seen = last.stat().st_mtime_ns
            position = torch.load(last, weights_only=True)["state"]["position"]
            if position["epoch"] >= 1 and position["batch"] > 0:
                break
            process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    position = torch.load(last, weights_only=True)["state"]["position"]
    assert not (workplace / "killed" / "summary.json").exists()
    assert 3 < position["step"] < 9, "killed in the middle"

    run("train", *arguments, "--resume", cwd=workplace)
    ours, theirs = (load_file(path / "primary.safetensors") for path in (workplace / "killed", finished))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert not list((workplace / "killed" / "checkpoints").glob(".*")), "nothing half-written is left"
    rows = [
        [json.loads(line) | {"seconds": 0} for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (workplace / "killed", finished)
    ]
    assert rows[0] == rows[1]

    out, _ = run("train", *arguments, "--resume", cwd=workplace)
    assert "finished" in out, "resuming a finished run changes nothing"


def test_a_run_terminated_during_its_export_exports_when_resumed(
    finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workplace / "unexported"
    shutil.copytree(finished, folder)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"onnx": None}))
    (folder / "primary.onnx").unlink()

    def stopped(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(checked_export, "export_onnx", stopped)
        run("train", "tiny.yaml", f"out={folder}", "--resume", cwd=workplace, code=130)
    assert not list(folder.glob("*.onnx"))
    assert not list(folder.glob(".*")), "nothing half-written is left"
    run("train", "tiny.yaml", f"out={folder}", "--resume", cwd=workplace)
    assert (folder / "primary.onnx").is_file()
    again = json.loads((folder / "summary.json").read_text())
    assert again["onnx"] == summary["onnx"]
    assert again["miou"] == summary["miou"]


def test_a_finished_run_whose_network_is_gone_makes_it_anew(finished: Path, workplace: Path) -> None:
    folder = workplace / "robbed run"
    shutil.copytree(finished, folder)
    (folder / "primary.safetensors").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("\0\0\n" + "".join(lines[1:]))  # as a power cut may leave it
    cv2.imwrite(str(workplace / "photo.png"), np.zeros((64, 96, 3), np.uint8))
    _, err = run("predict", folder, "photo.png", "--out", "seen", cwd=workplace, code=2)
    assert f"tools/train.py '{folder}/config.yaml' --resume 'out={folder}'" in err
    out, _ = run("train", "tiny.yaml", "--resume", f"out={folder}", cwd=workplace)
    assert "it has lost 1 epoch of the 3 that are done" in " ".join(out.split())
    assert (folder / "metrics.jsonl").read_text() == "".join(lines[1:])
    ours, theirs = (load_file(path / "primary.safetensors") for path in (folder, finished))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    scores = [json.loads((path / "summary.json").read_text())["miou"] for path in (folder, finished)]
    assert scores[0] == scores[1]

    (folder / "primary.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")
    _, err = run("train", "tiny.yaml", "--resume", f"out={folder}", cwd=workplace, code=2)
    assert "neither its primary.safetensors nor" in err
    assert "--overwrite" in err


def made_by_another_version(
    finished: Path, folder: Path, learner: Mapping[str, Any] | None = None, **position: int
) -> None:
    """A copy of a run as an earlier torch left it before its export or, by `position`, before its last steps."""
    shutil.copytree(finished, folder)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"onnx": None}))
    last = folder / "checkpoints" / "last.pt"
    content = torch.load(last, weights_only=True)
    content["versions"]["torch"] = "2.0"
    content["state"]["position"]["programs"] = [content["versions"]]
    content["state"]["position"] |= {"devices": ["4 x cuda"], **position}
    content["state"]["learner"] |= learner or {}
    torch.save(content, last)


def test_a_run_that_another_version_goes_on_with_says_so(finished: Path, workplace: Path) -> None:
    """Two of three epochs are another one's."""
    folder = workplace / "updated"
    made_by_another_version(finished, folder, epoch=2, step=6)
    out, _ = run("train", "tiny.yaml", f"out={folder}", "--resume", cwd=workplace)
    assert "another version trained the steps before: torch 2.0" in out
    now = importlib.metadata.version("torch")
    assert "this run is trained on 4 x cuda then 1 x cpu" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["versions"]["torch"], summary["devices"]) == (f"2.0 then {now}", "4 x cuda then 1 x cpu")
    again = torch.load(finished / "checkpoints" / "last.pt", weights_only=True)
    assert [one["torch"] for one in again["state"]["position"]["programs"]] == [now]


def test_who_only_exports_a_run_has_not_trained_it(finished: Path, workplace: Path) -> None:
    folder = workplace / "exported_elsewhere"
    made_by_another_version(finished, folder)
    out, _ = run("train", "tiny.yaml", f"out={folder}", "--resume", cwd=workplace)
    assert "another version" not in out
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["versions"]["torch"], summary["devices"]) == ("2.0", "4 x cuda")


def test_a_run_of_a_version_with_other_networks_is_not_gone_on_with(finished: Path, workplace: Path) -> None:
    folder = workplace / "other_networks"
    made_by_another_version(finished, folder, learner={"module": {}})
    _, err = run("train", "tiny.yaml", f"out={folder}", "--resume", cwd=workplace, code=2)
    for words in ("last.pt does not fit the networks", "torch 2.0", "--overwrite"):
        assert words in err


LOSSES = ("logit", "logit.views", "feature", "adversarial")
ALL_LOSSES = ("method.logit.views.weight=1", *(f"method.{loss}.ramp=[[0,1]]" for loss in LOSSES))


def assert_all_losses_were_played(metrics: Path) -> None:
    (line,) = metrics.read_text().splitlines()
    assert {"logit", "views", "feature", "adversarial", "discriminator"} <= json.loads(line)["train"].keys()


def test_two_processes_train_in_step_and_count_every_image_once(finished: Path, workplace: Path) -> None:
    """All losses from the first step on: each network waits for the other process only where it learns."""
    two = ("train.devices=2", "train.epochs=1", "method.adversarial.game=label", "train.ema_decay=0.9")
    launch("train", "tiny.yaml", "out=two", *two, *ALL_LOSSES, cwd=workplace)
    folder = workplace / "two"
    assert_all_losses_were_played(folder / "metrics.jsonl")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["devices"] == "2 x cpu"
    assert summary["steps"] == 3, "the batch is shared out, not multiplied"
    # Five images on two processes: one process scoring the same weights has to find the same numbers.
    run("evaluate", folder, "--weights", "last", cwd=workplace)
    scores = json.loads((folder / "evaluation_val_last.json").read_text())
    assert scores["miou"] == summary["miou"]


def test_the_saved_config_is_the_one_that_was_trained(finished: Path, workplace: Path) -> None:
    assert load_config(finished / "config.yaml") == load_config(workplace / "tiny.yaml")


def test_two_processes_stop_together_and_one_tells(workplace: Path) -> None:
    folder = workplace / "two_stopped"
    arguments = ("tiny.yaml", f"out={folder}", "train.devices=2", "train.epochs=500")
    process = start("train", *arguments, cwd=workplace)
    while not (folder / "checkpoints" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.count("interrupted; everything up to here is saved") == 1
    assert not list((folder / "checkpoints").glob(".*")), "nothing half-written is left"


def test_two_processes_end_together_if_the_first_one_may_not_write(workplace: Path) -> None:
    folder = workplace / "two_taken"
    with RunFolder(folder).owned():
        _, err = launch("train", "tiny.yaml", f"out={folder}", "train.devices=2", cwd=workplace, code=2)
    assert err.count("another process is training") == 1
    assert "Traceback" not in err


MISTAKES = {
    "misspelt key": (["train.epoch=3"], ["train.epoch", "did you mean 'epochs'"]),
    "misspelt kind": (["method.kind=self_distil"], ["method.kind", "did you mean 'self_distill'"]),
    "no tap there": (
        ["method.branches.taps=[3, 7]", "out=x1"],
        ["method.branches.taps", "depth 7", "[1, 2, 3, 4, 5]"],
    ),
    "no module there": (
        ["method.branches.taps=[decoder.block]", "out=x2"],
        ["method.branches.taps", "'decoder.block'"],
    ),
    "batch too large": (["train.batch_size=15", "out=x3"], ["train.batch_size=15", "14 training images"]),
    "uneven processes": (
        ["train.devices=2", "train.batch_size=5", "out=x4"],
        ["train.batch_size=5", "2 processes", "use a multiple, e.g. 6"],
    ),
    "an encoder for images of one size": (
        ["model.encoder=tu-swin_tiny_patch4_window7_224", "model.arch=fpn", "model.options={}", "out=x13"],
        ["data.size = [64, 96]", "model.options={img_size: [64, 96]}"],
    ),
    "images too small for an architecture": (
        ["model.arch=pan", "model.options={}", "method.kind=baseline", "out=x20"],
        ["data.size = [64, 96]", "data.size=[128,192] works"],
    ),
    "a crop that fits and a size that does not": (
        [
            *("model.encoder=tu-maxvit_rmlp_pico_rw_256", "model.options={}", "method.kind=baseline"),
            *("data.crop=[256, 256]", "data.size=[288, 256]", "out=x14"),
        ],
        ["data.size = [288, 256]", "data.crop=null"],
    ),
    "one image at a time": (
        ["model.arch=deeplabv3", "model.options={}", "train.batch_size=1", "out=x11"],
        ["train.batch_size=1", "deeplabv3 and its branches cannot be trained on one of 64x96"],
    ),
    "one image at a time for a branch that ends in one cell": (
        ["train.batch_size=1", "data.size=[32, 32]", "method.branches.taps=[5]", "out=x17"],
        ["train.batch_size=1", "unet and its branches cannot be trained on one of 32x32"],
    ),
    "one cell to compare": (
        ["data.size=[32, 32]", "method.feature.kind=affinity", "method.feature.stride=16", "out=x19"],
        ["method.feature.kind=affinity", "an image of 32x32 has one", "cosine"],
    ),
    "patches of 14 pixels": (
        [
            *("model.arch=dpt", "model.encoder=tu-eva02_tiny_patch14_224", "model.options={}"),
            *("data.size=[224, 224]", "method.kind=baseline", "out=x18"),
        ],
        ["model.encoder", "14 pixels per cell", "patches of 16"],
    ),
    "weights of another net": (
        ["model.encoder_weights=bundled"],
        ["model.encoder_weights", "tu-tf_efficientnet_lite0"],
    ),
    "no weights file": (
        ["model.encoder_weights=nowhere.safetensors", "out=x5"],
        ["nowhere.safetensors", "model.encoder_weights=none"],
    ),
    "logits of another size": (
        ["model.arch=fpn", "model.options={upsampling: 1}", "out=x15"],
        ["model.options", "logits of 16x24 for images of 64x96", "`upsampling` has to be 4 times"],
    ),
    "no name of a transform": (["data.augment.custom=[{name: [a]}]", "out=x16"], ["entry 0", "['a']"]),
    "unknown smp option": (
        ["model.options={decoder_chanels: [1]}", "out=x6"],
        ["decoder_chanels"],
    ),
    "bad transform": (
        ["data.augment.custom=[{name: Flup}]", "out=x7"],
        ["data.augment.custom", "'Flup'"],
    ),
    "class weights": (
        ["method.supervised.class_weights=[1.0, 2.0]", "out=x8"],
        ["method.supervised.class_weights", "11"],
    ),
    "a file for the run folder": (
        ["data.kind=camvid", "data.root=nowhere", "out=tiny.yaml"],  # told before the data are looked at
        ["out=tiny.yaml cannot be written: ", "name a folder"],
    ),
    "no CamVid where it should be": (
        ["data.kind=camvid", "data.root=nowhere", "out=x9"],
        ["nowhere holds no train, ", "data.root=", "prepare_data.py camvid --root nowhere", "synthetic"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_message_with_exit_code_2(workplace: Path, mistake: str) -> None:
    overrides, words = MISTAKES[mistake]
    _, err = run("train", "tiny.yaml", *overrides, cwd=workplace, code=2)
    assert "Traceback" not in err
    assert err.count("error:") == 1
    for word in words:
        assert word in err
    folders = [Path(o.removeprefix("out=")) for o in overrides if o.startswith("out=")]
    assert not any((workplace / folder / "config.yaml").exists() for folder in folders), "nothing was begun"


def test_a_finished_run_is_not_overwritten_unasked(finished: Path, workplace: Path) -> None:
    before = (finished / "summary.json").read_bytes()
    _, err = run("train", "tiny.yaml", cwd=workplace, code=2)
    assert "--resume" in err
    assert "--overwrite" in err
    assert (finished / "summary.json").read_bytes() == before


def test_resuming_with_other_settings_is_refused(finished: Path, workplace: Path) -> None:
    _, err = run("train", "tiny.yaml", "--resume", "train.optimizer.lr=0.5", cwd=workplace, code=2)
    assert "train.optimizer.lr: 0.001 when it was started, 0.5 now" in err
    assert str(finished.relative_to(workplace)) in err


def test_a_folder_that_is_no_run_is_told_so(workplace: Path) -> None:
    for tool in ("evaluate", "export"):
        _, err = run(tool, workplace, cwd=workplace, code=2)
        assert "config.yaml" in err
        assert "Traceback" not in err
