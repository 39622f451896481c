"""How many processes a training takes of what the machine has."""

import re
from collections.abc import Callable

import pytest
import torch

from segdistill.build.training import devices_of, idle_gpus
from segdistill.config import Config


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
    """torchrun's processes count themselves; a number of ours would be refused as another one."""
    with_gpus(8)
    train = tiny_config(train={"batch_size": 4, "accelerator": "auto"}).train
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert devices_of(train) == "auto"
    assert idle_gpus(train) is None
