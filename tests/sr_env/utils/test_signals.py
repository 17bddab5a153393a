"""A run is asked to stop by a signal, and stops at once by a second one."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sr_env.utils.signals import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_and_a_second_interrupts(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with stop_requests() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        assert asked.wait(5)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal arrives between two bytecodes
            os.kill(os.getpid(), number)
            threading.Event().wait(5)
    assert {each: signal.getsignal(each) for each in before} == before


def test_another_thread_does_not_listen() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stop_requests() as asked:
            seen.append((asked.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
