"""Whether this process was forked, and what torch needs then. Nothing heavy is imported."""

from __future__ import annotations

import multiprocessing
import os

_forked = False


def _note() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note)


def spare_forked_threads() -> None:
    """In a forked process, let torch compute in one thread; elsewhere change nothing.

    A forked worker (AsyncVectorEnv, SubprocVecEnv) inherits torch's thread pool without its threads and would wait for
    them forever; and with one process per environment, one thread each is what the cores can bear. Whoever computes in
    a worker calls this, so that forks of a program that compute nothing of ours keep their threads.
    """
    if _forked or _worker_was_forked():
        import torch

        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)


def _worker_was_forked() -> bool:
    """Whether multiprocessing forked this process, before this module was imported too."""
    if multiprocessing.parent_process() is None:
        return False
    own = getattr(multiprocessing.current_process(), "_start_method", None)  # None: that of the default context
    return (own or multiprocessing.get_start_method(allow_none=True)) == "fork"
