"""How many processes a training takes of what the machine has."""

import re
from collections.abc import Callable

import pytest
import torch

from segdistill.build.training import build_fabric, devices_of, idle_gpus
from segdistill.config import Config
from segdistill.errors import ConfigError
from segdistill.processes import launched

#: What they write into the environment of four processes on one machine.
LAUNCHERS = (
    {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}
    | {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train"}
    | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
    {"SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"},
)


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def has(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return has


@pytest.mark.parametrize(
    ("accelerator", "devices", "gpus", "taken", "told"),
    [
        ("auto", "auto", 0, 1, None),
        ("auto", "auto", 1, 1, None),
        ("auto", "auto", 2, 2, None),
        ("auto", "auto", 8, 2, "takes 2 of 8 GPUs: train.batch_size=4 .* train.batch_size=16 would"),
        ("auto", 4, 8, 4, None),
        ("auto", 1, 8, 1, None),
        ("cpu", "auto", 8, 1, None),
        ("cpu", 2, 8, 2, None),
    ],
)
def test_processes_and_what_is_said_of_idle_gpus(
    tiny_config: Callable[..., Config],
    with_gpus: Callable[[int], None],
    accelerator: str,
    devices: int | str,
    gpus: int,
    taken: int,
    told: str | None,
) -> None:
    with_gpus(gpus)
    train = tiny_config(train={"batch_size": 4, "accelerator": accelerator, "devices": devices}).train
    assert devices_of(train) == taken
    remark = idle_gpus(train)
    assert (remark is None) == (told is None)
    assert re.search(told or "", remark or "")


def test_a_launcher_from_outside_has_chosen(
    tiny_config: Callable[..., Config], with_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(8)
    train = tiny_config(train={"batch_size": 4, "accelerator": "auto"}).train
    for variables in LAUNCHERS:
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            started = int(variables.get("LOCAL_WORLD_SIZE") or variables["SLURM_NTASKS"])
            assert devices_of(train) == started
            assert re.search(f"{started} of 8 GPUs, as many as the launcher", idle_gpus(train) or "")


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        (LAUNCHERS[0], 2),
        (LAUNCHERS[0], 1),
        (LAUNCHERS[0] | {"LOCAL_WORLD_SIZE": "2"}, "auto"),
        (LAUNCHERS[1], 2),
    ],
    ids=["torchrun", "torchrun for one", "torchrun on two machines", "slurm"],
)
def test_a_launcher_of_another_number_is_told(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    devices: int | str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fabric = build_fabric(tiny_config(train={"batch_size": 4, "devices": devices}))
    with (
        pytest.raises(ConfigError, match=r"has not started one process .* leave train\.devices"),
        launched(fabric, to_save_memory=""),
    ):
        pytest.fail("there is nobody to work with")
