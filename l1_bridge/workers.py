"""Processes for work that holds the interpreter; each ends when its owner does, however that ends.

And what makes a busy process of ours faster, in one place.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from threading import Thread

GC_THRESHOLDS = (50_000, 50, 100)


def collect_seldom() -> None:
    """For a process whose objects are many, live long and hold hardly a cycle.

    Looking for cycles as often as Python does by default takes a seventh of a node's event loop under load,
    an eighth of a verifier's time, and half of decoding's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def worker_process() -> ProcessPoolExecutor:
    """An executor of one process, started at first use; whoever made it shuts it down.

    The process ignores Ctrl-C, which goes to the whole group, so that its owner can still drain.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_serve_only_the_parent)


def _serve_only_the_parent() -> None:
    """An owner that is killed cannot shut anything down, and the queues of a pool do not tell of its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_seldom()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
