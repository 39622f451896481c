"""Processes that are started, watched, stopped; the training itself is tested in test_program.py."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segdistill.errors import InterruptedRunError, RunFolderError
from segdistill.study.rungs import Rung
from segdistill.study.runner import Beginning, Failure, PlannedRun, Runner, seconds_left

#: Stands in for the training: writes what it was started with; the rung `slow` waits for SIGTERM, `bad` fails,
#: `killed` is.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
settings, resume = sys.argv[1:]
folder = Path(settings).with_suffix("")
kind = folder.parent.name
keys = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SEGDISTILL_CORES", "SEGDISTILL_STUDY")
folder.mkdir(parents=True)
(folder / "env.json").write_text(json.dumps({k: os.environ.get(k) for k in keys} | {"began": time.time()}))
if kind == "bad":
    print("some line"); print("error: key = 3:\\n  should be 4", file=sys.stderr); sys.exit(2)
if kind == "killed":
    print("step 3", flush=True); os.kill(os.getpid(), signal.SIGKILL)
def stop(*_):
    (folder / "saved").touch(); sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(folder / "ready").touch()
if kind == "source":
    time.sleep(0.7)
    (folder / "checkpoints" / "epoch2").mkdir(parents=True)
    (folder / "checkpoints" / "epoch2" / "last.pt").touch()
time.sleep(60 if kind == "slow" else 0.7)
(folder / "ended").write_text(str(time.time()))
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen

    def popen(command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        assert command[:4] == [sys.executable, "-m", "segdistill.cli", "train"]
        return start([sys.executable, str(script), *command[4:]], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)


def plan(tmp_path: Path, name: str, *, epochs: int = 4) -> PlannedRun:
    folder = tmp_path / "study" / name / "seed0"
    return PlannedRun(Rung(name, ()), 0, folder, epochs, "")


def runner(
    *,
    jobs: int = 1,
    gpus: int = 0,
    said: list[str] | None = None,
    take_over: Callable[[PlannedRun], None] = lambda _: None,
) -> Runner:
    said = [] if said is None else said
    return Runner(
        jobs=jobs,
        gpus=gpus,
        take_over=take_over,
        watch=lambda _: None,
        said=said.append,
        failed=lambda failure: said.append(failure.message()),
    )


def environment(run: PlannedRun) -> dict[str, str | float | None]:
    return json.loads((run.folder / "env.json").read_text())


def test_jobs_share_cores_and_gpus_and_run_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    runs = [plan(tmp_path, name) for name in "abc"]
    done: list[PlannedRun] = []
    assert runner(jobs=2, gpus=2).run(runs, finished=done.append) == []
    assert set(done) == set(runs)
    assert [environment(run)["OMP_NUM_THREADS"] for run in runs] == ["4"] * 3
    assert [environment(run)["SEGDISTILL_CORES"] for run in runs] == ["4"] * 3
    assert environment(runs[0])["SEGDISTILL_STUDY"] == str(os.getpid())
    first, second, third = (environment(run) for run in runs)
    assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"0", "1"}
    ends = [float((run.folder / "ended").read_text()) for run in runs]
    assert second["began"] < ends[0], "two at a time"  # type: ignore[operator]
    assert third["began"] > min(ends[:2]), "and not three"  # type: ignore[operator]


def test_one_job_sees_every_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    run = plan(tmp_path, "a")
    runner(jobs=1, gpus=2).run([run], finished=lambda _: None)
    assert environment(run)["CUDA_VISIBLE_DEVICES"] is None


def test_a_failure_is_told_with_its_last_words_and_stops_nobody_else(tmp_path: Path) -> None:
    bad, good = plan(tmp_path, "bad"), plan(tmp_path, "good")
    said: list[str] = []
    done: list[PlannedRun] = []
    (failure,) = runner(said=said).run([bad, good], finished=done.append)
    assert (
        failure.message() == f"bad, seed 0 ended with code 2 ({bad.log.path}): error: key = 3:\n  should be 4"
    )
    assert failure.message() in said
    assert done == [good]
    assert bad.log.error == bad.log.failure == "error: key = 3:\n  should be 4"
    assert good.log.failure == ""
    assert plan(tmp_path, "never started").log.error == ""


def test_a_training_that_was_killed_is_told_as_such(tmp_path: Path) -> None:
    """It cannot say so itself, and the note stays when the comparison is over."""
    killed = plan(tmp_path, "killed")
    (failure,) = runner().run([killed], finished=lambda _: None)
    how = "killed by signal 9 (out of memory?)"
    assert failure.message() == f"killed, seed 0 was {how} ({killed.log.path}): step 3"
    assert (killed.log.failure, killed.log.error) == (how, "")
    killed.log.start()
    assert killed.log.failure == "", "of the next try"


def test_what_others_say_later_is_no_part_of_an_error(tmp_path: Path) -> None:
    """A training that outlived its comparison still writes to the log of its run."""
    bad = plan(tmp_path, "bad")
    runner().run([bad], finished=lambda _: None)
    with bad.log.path.open("a") as log:
        log.write("epoch 7\nepoch 8\n")
    assert bad.log.error == "error: key = 3:\n  should be 4"


def test_only_the_last_try_speaks(tmp_path: Path) -> None:
    run = plan(tmp_path, "bad")
    runner().run([run], finished=lambda _: None)
    with run.log.path.open("a") as log:
        log.write("---- started\nepoch 1\n")
    assert Failure(run, -9).message().endswith(": epoch 1"), "killed: not what an earlier try complained of"
    assert run.log.error == ""
    with run.log.path.open("a") as log:
        log.write("Traceback (most recent call last):\n  File ...\nValueError: bad [/tag]\n")
    assert run.log.error == "ValueError: bad [/tag]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_is_passed_on_and_waited_for(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    inherited = signal.signal(number, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, inherited))
    slow, never = plan(tmp_path, "slow"), plan(tmp_path, "never")

    def interrupt() -> None:
        while not (slow.folder / "ready").exists():
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedRunError, match="the same command goes on"):
        runner().run([slow, never], finished=lambda _: None)
    thread.join()
    assert (slow.folder / "saved").exists()
    assert not never.folder.exists()
    assert signal.getsignal(number) is before


def sharing(run: PlannedRun, source: PlannedRun) -> PlannedRun:
    """The run, which shares two epochs with another."""
    checkpoint = source.folder / "checkpoints" / "epoch2" / "last.pt"
    return replace(run, beginning=Beginning(source.name, source.folder, 2, checkpoint))


def test_a_run_waits_for_its_beginning_and_others_pass_it(tmp_path: Path) -> None:
    source, other = plan(tmp_path, "source"), plan(tmp_path, "other")
    sharer = sharing(plan(tmp_path, "sharer"), source)
    taken: list[tuple[PlannedRun, bool]] = []
    said: list[str] = []

    def take_over(run: PlannedRun) -> None:
        taken.append((run, (source.folder / "ended").exists()))

    runner(jobs=2, said=said, take_over=take_over).run([source, sharer, other], finished=lambda _: None)
    assert taken == [(sharer, False)], "once, and as soon as the other run has come so far"
    assert said == [
        f"starting source, seed 0 (log: {source.log.path})",
        f"starting other, seed 0 (log: {other.log.path})",
        f"starting after epoch 2 of source, seed 0, equal until there: sharer, seed 0 (log: {sharer.log.path})",
    ]


@pytest.mark.parametrize("source", ["bad", "other"])
def test_without_a_checkpoint_a_run_begins_by_itself(tmp_path: Path, source: str) -> None:
    """Where the other run failed, or was trained before anybody wanted its beginning."""
    first = plan(tmp_path, source)
    sharer = sharing(plan(tmp_path, "sharer"), first)
    said: list[str] = []
    runner(jobs=2, said=said).run([first, sharer], finished=lambda _: None)
    assert environment(sharer)["began"] > environment(first)["began"]  # type: ignore[operator]
    assert "from its first epoch, since" in said[-1]


def test_nobody_waits_for_what_cannot_come(tmp_path: Path) -> None:
    """The other run is past that epoch."""
    source = plan(tmp_path, "slow")
    sharer = sharing(plan(tmp_path, "sharer"), source)
    told: list[str] = []

    def finished(run: PlannedRun) -> None:
        told.append(run.rung.name)
        os.kill(os.getpid(), signal.SIGTERM)  # or the slow one would last a minute

    def late() -> None:
        while not (source.folder / "ready").exists():
            time.sleep(0.05)
        rows = [json.dumps({"epoch": epoch, "seconds": 1.0}) + "\n" for epoch in (1, 2, 3)]
        (source.folder / "metrics.jsonl").write_text("".join(rows))

    thread = threading.Thread(target=late)
    thread.start()
    with pytest.raises(InterruptedRunError):
        runner(jobs=2).run([source, sharer], finished=finished)
    thread.join()
    assert told == ["sharer"]


@pytest.mark.parametrize("error", [RunFolderError, OSError])
def test_a_beginning_that_cannot_be_taken_over_is_trained(tmp_path: Path, error: type[Exception]) -> None:
    source = plan(tmp_path, "source")
    sharer = sharing(plan(tmp_path, "sharer"), source)
    said: list[str] = []

    def take_over(_: PlannedRun) -> None:
        raise error("it is torn")

    done: list[PlannedRun] = []
    assert runner(said=said, take_over=take_over).run([source, sharer], finished=done.append) == []
    assert said[-1] == f"starting from its first epoch (it is torn): sharer, seed 0 (log: {sharer.log.path})"
    assert done == [source, sharer]


def test_a_run_that_has_begun_goes_on_with_its_own(tmp_path: Path) -> None:
    source = plan(tmp_path, "source")
    sharer = sharing(plan(tmp_path, "slow"), source)
    sharer.folder.mkdir(parents=True)
    (sharer.folder / "config.yaml").touch()
    said: list[str] = []
    runner(jobs=2, said=said, take_over=lambda _: pytest.fail("its beginning is there")).run(
        [sharer], finished=lambda _: None
    )
    assert said[0].startswith("resuming slow, seed 0 (log:")


def write_epochs(run: PlannedRun, *seconds: float) -> None:
    run.folder.mkdir(parents=True)
    rows = [json.dumps({"epoch": index, "seconds": value}) + "\n" for index, value in enumerate(seconds, 1)]
    (run.folder / "metrics.jsonl").write_text("".join(rows) + '{"epoch"')  # the last line is being written


def test_time_left_follows_each_rungs_own_pace(tmp_path: Path) -> None:
    quick, slow, new = (plan(tmp_path, name, epochs=3) for name in ("quick", "slow", "new"))
    assert seconds_left([quick, slow, new], jobs=1) is None
    write_epochs(quick, 1.0, 3.0)
    write_epochs(slow, 8.0)
    # One epoch of 2 s, two of 8 s, three of a rung not seen yet at the mean of 4 s.
    assert seconds_left([quick, slow, new], jobs=1) == pytest.approx(2 + 16 + 12)
    assert seconds_left([quick, slow, new], jobs=2) == pytest.approx(15)
    sharer = sharing(new, quick)
    assert seconds_left([quick, slow, sharer], jobs=1) == pytest.approx(2 + 16 + 4), "one epoch of three"
    write_epochs(sharer, 2.0, 2.0)
    (sharer.folder / "config.yaml").touch()
    assert seconds_left([sharer, slow], jobs=1) == pytest.approx(2 + 16), "it does all epochs itself"
    (sharer.folder / "beginning.json").touch()
    assert seconds_left([sharer, slow], jobs=1) == pytest.approx(8 + 16), "of its own ones there is none yet"


def test_whatever_ends_the_parent_no_training_goes_on_alone(tmp_path: Path) -> None:
    quick, slow = plan(tmp_path, "quick"), plan(tmp_path, "slow")

    def broken(_: PlannedRun) -> None:
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        runner(jobs=2).run([quick, slow], finished=broken)
    assert (slow.folder / "saved").exists()


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """nohup ignores SIGHUP so that a program outlives its terminal."""
    run = plan(tmp_path, "a")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hang_up = threading.Timer(
            0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)
        )
        hang_up.start()
        done: list[PlannedRun] = []
        runner().run([run], finished=done.append)
        assert done == [run]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("gpus", "dealt"), [(5, ["0,1", "2,3"]), (3, ["0", "1"]), (1, ["0", "0"])])
def test_all_jobs_have_as_many_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, dealt: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = [plan(tmp_path, name) for name in "ab"]
    runner(jobs=2, gpus=gpus).run(runs, finished=lambda _: None)
    assert [environment(run)["CUDA_VISIBLE_DEVICES"] for run in runs] == dealt


def test_threads_and_cores_that_were_dealt_out_by_others_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGDISTILL_CORES", "6")
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # the second is of nested parallel regions
    run = plan(tmp_path, "a")
    runner(jobs=2).run([run], finished=lambda _: None)
    assert environment(run)["SEGDISTILL_CORES"] == "3"
    assert environment(run)["OMP_NUM_THREADS"] == "1"


def test_gpus_that_were_dealt_out_by_others_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    runs = [plan(tmp_path, name) for name in "ab"]
    runner(jobs=2, gpus=2).run(runs, finished=lambda _: None)
    assert [environment(run)["CUDA_VISIBLE_DEVICES"] for run in runs] == ["5", "7"]
