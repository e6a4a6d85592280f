from __future__ import annotations

import os
import signal
from threading import Thread

import pytest

from holdfast.errors import Stopped
from holdfast.runtime.signals import deferred, listen


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_is_heard_when_all_is_loaded(number: int, error: type[BaseException]) -> None:
    listen()
    loaded = False
    with pytest.raises(error), deferred():
        os.kill(os.getpid(), number)
        loaded = True
    assert loaded
    with pytest.raises(error):
        os.kill(os.getpid(), number)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_load_too() -> None:
    errors: list[BaseException] = []

    def load() -> None:
        try:
            with deferred():
                listen()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=load)
    thread.start()
    thread.join()
    assert errors == []
