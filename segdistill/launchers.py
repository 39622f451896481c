"""What has started this process and others beside it: torchrun, or srun of Slurm."""

import os
from dataclasses import dataclass

from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

#: Slurm's numbers from here on are of no step of srun's but of a batch script and of salloc's shell: of one process,
#: whatever number of tasks stands beside them. So is a shell of srun's own.
_RESERVED_STEPS = 0xFFFF_FFF0


@dataclass(frozen=True)
class Launcher:
    """
    Attributes:
        processes: that were started, on all machines.
        here: those on this one.
        environment: from which Fabric learns which of them this is.
    """

    processes: int
    here: int
    environment: ClusterEnvironment


class SrunStep(SLURMEnvironment):
    """The tasks of one step of srun. Fabric's own environment takes what a job was allotted for what was started, and
    waits for ever for the rest; it meets at the job's first machine, by a port of the job's."""

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR", "127.0.0.1")  # all are here

    @property
    def main_port(self) -> int:
        job, step = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("JOB_ID", "STEP_ID"))
        return int(os.environ.get("MASTER_PORT", 15000 + (31 * job + step) % 10000))

    def world_size(self) -> int:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        if num_devices * num_nodes != self.world_size():
            raise ValueError(f"{self.world_size()} tasks for {num_devices}")

    @staticmethod
    def _validate_srun_used() -> None:
        """It was."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Those of the job do not matter."""


def launcher() -> Launcher | None:
    """Who has started several processes, or one and wants to be asked; None if the program may start others itself."""
    if TorchElasticEnvironment.detect():
        processes, here = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return Launcher(processes, here, TorchElasticEnvironment())
    tasks, machines, step = (
        int(os.environ.get(f"SLURM_STEP_{name}", "1")) for name in ("NUM_TASKS", "NUM_NODES", "ID")
    )
    shell = step >= _RESERVED_STEPS or "SLURM_PTY_PORT" in os.environ  # the latter of srun --pty
    if tasks == 1 or shell:
        return None
    return Launcher(tasks, tasks // machines, SrunStep())


def environment() -> ClusterEnvironment:
    """For Fabric, which starts the processes itself if nobody else has."""
    found = launcher()
    return found.environment if found else LightningEnvironment()
