"""Trainings that begin with the weights of a whole network, and what a run remembers of them when the file is gone."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file

from segdistill.build.datasets import build_normalisation
from segdistill.build.network import build_net
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.trained import trained_streams
from segdistill.commands.wanted_file import Wanted, describe
from segdistill.config import Config
from segdistill.config_io import load_config
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.weights import load_deployed
from segdistill.normalisation import Normalisation
from segdistill.streams import PRIMARY
from tests.program import TINY, run, write_config

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
SILENT = ("train.optimizer.lr=1e-12", "train.optimizer.weight_decay=0")


def plain_network() -> torch.nn.Module:
    model: Any = TINY["model"]
    return smp.create_model("unet", model["encoder"], encoder_weights=None, classes=11, **model["options"])


def begun(folder: str) -> tuple[str, ...]:
    return (f"out={folder}", "model.weights=own.safetensors", "train.epochs=2", *SILENT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, weights of somebody's own network, and a run that begins with them."""
    place = tmp_path_factory.mktemp("weights")
    write_config(place / "tiny.yaml")
    torch.manual_seed(5)
    metadata = {"mean": str(list(MEAN)), "std": str(list(STD))}
    save_file(plain_network().state_dict(), place / "own.safetensors", metadata=metadata)
    said, _ = run("train", "tiny.yaml", *begun("first"), "train.keep_epochs=[1]", cwd=place)
    words = " ".join(said.split())
    assert f"begins with the weights of own.safetensors; images are normalised by mean {[*MEAN]}" in words
    return place


def test_a_training_begins_with_the_weights_of_the_network(place: Path) -> None:
    """At a rate of next to nothing it ends with them, too; the seed's own would be others."""
    before, after = load_file(place / "own.safetensors"), load_file(place / "first" / "primary.safetensors")
    assert before.keys() == after.keys()
    learnt = [name for name in before if not name.endswith(("running_mean", "running_var", "tracked"))]
    assert len(learnt) > 50
    for name in learnt:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-8)
    assert load_deployed(place / "first" / "primary.safetensors")[1].normalisation == Normalisation(MEAN, STD)
    summary = json.loads((place / "first" / "summary.json").read_text())
    assert summary["first_weights"] == hashlib.sha256((place / "own.safetensors").read_bytes()).hexdigest()


def test_a_run_goes_on_and_is_scored_when_the_file_is_gone(place: Path, tmp_path: Path) -> None:
    """The checkpoint has all weights and knows how images are normalised, so that the end is the same to the bit."""
    second = tmp_path / "second"
    shutil.copytree(place / "first", second)
    shutil.copy(place / "tiny.yaml", tmp_path)
    for name in ("last.pt", "best.pt"):
        shutil.copy(second / "checkpoints" / "epoch1" / name, second / "checkpoints" / name)
    for name in ("primary.safetensors", "primary.onnx", "summary.json"):
        (second / name).unlink()
    curve = (second / "metrics.jsonl").read_text().splitlines()[0]
    (second / "metrics.jsonl").write_text(f"{curve}\n")
    run("evaluate", second, "--weights", "last", cwd=tmp_path)
    found = json.loads((second / "evaluation_val_last.json").read_text())["miou"]["primary"]
    assert found == pytest.approx(json.loads(curve)["val"]["miou"]["primary"], abs=1e-9)

    said, _ = run("train", "tiny.yaml", *begun("second"), "--resume", cwd=tmp_path)

    assert "resuming after step 3" in said
    ends = [folder / "primary.safetensors" for folder in (second, place / "first")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    _, err = run("train", "tiny.yaml", *begun("third"), cwd=tmp_path, code=2)
    assert "model.weights: cannot read own.safetensors" in err
    assert not (tmp_path / "third" / "config.yaml").exists()


def test_a_run_can_be_trained_from_again_from_another_folder(place: Path, tmp_path: Path) -> None:
    run("train", place / "first" / "config.yaml", "out=again", cwd=tmp_path)
    ends = [folder / "primary.safetensors" for folder in (tmp_path / "again", place / "first")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_files_of_a_run_do_not_say_where_its_weights_lay(place: Path) -> None:
    """Not even those that are exported later, though the run's own configuration does."""
    folder = RunFolder(place / "first")
    config = folder.load_config()
    assert config.model.weights == str(place / "own.safetensors")
    (primary,) = trained_streams(folder, config, PRIMARY)
    later, first = describe(primary, Wanted(), calibrated_on=0), OnnxFile(folder.onnx).description
    assert f"({config.model.encoder}, own.safetensors)" in later.licence
    assert (later.licence, later.config_hash) == (first.licence, first.config_hash)


def own_settings(place: Path, *overrides: str) -> Config:
    path = json.dumps(str(place / "own.safetensors"))
    return load_config(place / "tiny.yaml", (f"model.weights={path}", *overrides))


def test_parallel_convolutions_change_nothing_at_first_of_what_the_decoder_has_learnt(place: Path) -> None:
    plain = plain_network()
    plain.load_state_dict(load_file(place / "own.safetensors"))
    parallel = build_net(own_settings(place, "method.reparam.copies=1")).primary
    assert sum(p.numel() for p in parallel.parameters()) > sum(p.numel() for p in plain.parameters())
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(parallel.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-4)


def test_mean_and_std_of_ones_own_come_before_those_of_the_weights(place: Path) -> None:
    assert build_normalisation(own_settings(place)) == Normalisation(MEAN, STD)
    asked = own_settings(place, "data.mean=[0, 0, 0]", "data.std=[1, 1, 1]")
    assert build_normalisation(asked) == Normalisation((0, 0, 0), (1, 1, 1))


def test_what_the_weights_make_needless_has_no_effect(place: Path) -> None:
    bundled = own_settings(
        place, "model.encoder_weights=bundled"
    ).model  # for another encoder, and not asked for
    assert bundled.unused == ("encoder_weights",)
    assert load_config(place / "tiny.yaml").model.unused == ("new_head",)
