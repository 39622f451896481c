"""The signals that ask a program to stop."""

import os
import signal
import stat

#: What a terminal sends that is closed, or an ssh connection that is lost. Windows has none.
HANGUP = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set[signal.Signals]()
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM} | HANGUP


def heeded() -> set[signal.Signals]:
    """Those that this process has to answer. An ignored SIGHUP stays ignored: that is how nohup lets a program outlive
    its terminal."""
    return STOP_SIGNALS - {number for number in HANGUP if signal.getsignal(number) is signal.SIG_IGN}


def leave_terminal(number: int) -> None:
    """To be called by whoever answers a signal: a terminal that is gone is neither heard nor spoken to any more.

    Shell and kernel may send SIGHUP one after the other, which would look like a second wish to stop, and every word to
    the terminal would be an OSError, in place of what is still to be saved.
    """
    if number not in HANGUP:
        return
    signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):  # nobody can ask a terminal that is gone whether it is one
            os.dup2(nowhere, stream)
    os.close(nowhere)
