"""How many processes a training takes of what the machine has."""

import re
from collections.abc import Callable

import pytest
import torch
from lightning_fabric.plugins.environments import LightningEnvironment

from segdistill.build.training import build_fabric, devices_of, idle_gpus
from segdistill.config import Config
from segdistill.errors import ConfigError
from segdistill.launchers import environment
from segdistill.processes import launched

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}
#: A job for which four tasks were set apart, in its batch script: one process.
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train.sh",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1"}
SRUN_WITHOUT_PER_NODE = {name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}
ALONE = {
    "a batch script": BATCH_SCRIPT,
    "a batch script of one task": BATCH_SCRIPT | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"},
    "srun of one task in a job of four": SRUN | {"SLURM_STEP_NUM_TASKS": "1"},
    "a shell of srun's": SRUN | {"SLURM_PTY_PORT": "34129", "SLURM_JOB_NAME": "bash"},
    "the shell of salloc": SRUN | {"SLURM_STEP_ID": "4294967290"},
}


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


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets what a launcher writes into the environment of the first process."""

    def launcher(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return launcher


@pytest.mark.parametrize(
    "variables", [TORCHRUN, SRUN, SRUN_WITHOUT_PER_NODE], ids=["torchrun", "srun", "srun --ntasks"]
)
def test_a_launcher_from_outside_has_chosen(
    tiny_config: Callable[..., Config],
    with_gpus: Callable[[int], None],
    within: Callable[[dict[str, str]], None],
    variables: dict[str, str],
) -> None:
    with_gpus(8)
    within(variables)
    train = tiny_config(train={"batch_size": 4, "accelerator": "auto"}).train
    assert devices_of(train) == 4
    assert re.search("4 of 8 GPUs, as many as the launcher", idle_gpus(train) or "")


@pytest.mark.parametrize("variables", ALONE.values(), ids=ALONE.keys())
def test_one_process_of_a_slurm_job_chooses_and_starts_the_others_itself(
    tiny_config: Callable[..., Config],
    with_gpus: Callable[[int], None],
    within: Callable[[dict[str, str]], None],
    variables: dict[str, str],
) -> None:
    within(variables)
    assert isinstance(environment(), LightningEnvironment)
    fabric = build_fabric(tiny_config(train={"devices": 2}))
    assert fabric.world_size == 2
    assert not fabric.strategy.cluster_environment.creates_processes_externally  # type: ignore[attr-defined]
    with_gpus(8)
    assert devices_of(tiny_config(train={"batch_size": 4, "accelerator": "auto"}).train) == 2


def test_the_tasks_of_a_step_meet_on_this_machine_apart_from_other_steps(
    within: Callable[[dict[str, str]], None],
) -> None:
    ports = set()
    for step in ("0", "1"):
        within(SRUN | {"SLURM_NODELIST": "node[1-2]", "SLURM_STEP_ID": step})
        assert environment().main_address == "127.0.0.1"
        ports.add(environment().main_port)
    assert len(ports) == 2
    assert all(15000 <= port < 25000 for port in ports)


@pytest.mark.parametrize(
    ("variables", "devices", "told"),
    [
        (TORCHRUN, 2, "4"),
        (TORCHRUN, 1, "4 processes, 4 of them here, for 1"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, "auto", "4 processes, 2 of them here, for 4"),
        (SRUN, 2, "4 tasks for 2"),
        (SRUN, 1, "4 processes, 4 of them here, for 1"),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2"}, "auto", "4 processes, 2 of them here, for 4"),
    ],
)
def test_a_launcher_of_another_number_is_told(
    tiny_config: Callable[..., Config],
    within: Callable[[dict[str, str]], None],
    variables: dict[str, str],
    devices: int | str,
    told: str,
) -> None:
    within(variables)
    fabric = build_fabric(tiny_config(train={"batch_size": 4, "devices": devices}))
    with (
        pytest.raises(ConfigError, match=rf"has not started one process .*{told}.*leave train\.devices"),
        launched(fabric, to_save_memory=""),
    ):
        pytest.fail("there is nobody to work with")
