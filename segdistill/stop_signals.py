"""The signals that ask a program to stop."""

import signal

#: What a terminal sends that is closed, or an ssh connection that is lost. Windows has none.
HANGUP = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set[signal.Signals]()
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM} | HANGUP


def heeded() -> set[signal.Signals]:
    """Those that this process has to answer. An ignored SIGHUP stays ignored: that is how nohup lets a program outlive
    its terminal."""
    return STOP_SIGNALS - {number for number in HANGUP if signal.getsignal(number) is signal.SIG_IGN}
