"""Signals that ask a program to stop, of a terminal that is really closed, too."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segdistill.stop_signals import heeded, leave_terminal

#: Stands in for a training: on a terminal of its own, it goes on to the end of its step after it was asked to stop, and
#: talks, and is hung up on once more, as shell and kernel do one after the other.
AT_A_TERMINAL = """
import os, signal, sys, time
terminal, said = sys.argv[1:]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what started the tests may ignore it, as nohup does
screen = os.open(terminal, os.O_RDWR)  # of a session's leader it is the one that can hang up
for stream in (0, 1, 2):
    os.dup2(screen, stream)
os.close(screen)
from segdistill.training.interruption import stop_requested
with stop_requested() as stop:
    print("training", flush=True)
    while not stop.is_set():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGHUP)
    for _ in range(3):
        print("an epoch's line", flush=True)
        print("an error's", file=sys.stderr, flush=True)
    with open(said, "w") as file:
        file.write("saved")
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to close")
def test_a_closed_terminal_is_a_wish_to_stop_and_no_error(tmp_path: Path) -> None:
    master, slave = os.openpty()
    said = tmp_path / "said"
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, os.ttyname(slave), str(said)], start_new_session=True
    )
    try:
        seen = b""
        while not seen.endswith(b"\n"):
            seen += os.read(master, 100)
        assert seen == b"training\r\n"
        os.close(slave)
        os.close(master)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert said.read_text() == "saved"


def test_output_that_goes_elsewhere_is_still_written(tmp_path: Path) -> None:
    code = (
        "import signal; from segdistill.stop_signals import leave_terminal; leave_terminal(signal.SIGHUP); "
        "print('to the end'); assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN"
    )
    log = tmp_path / "log"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert log.read_text() == "to the end\n"


def test_other_signals_leave_the_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup2", lambda *_: pytest.fail("it is still there"))
        leave_terminal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert heeded() == {signal.SIGINT, signal.SIGTERM}
    finally:
        signal.signal(signal.SIGHUP, before)
