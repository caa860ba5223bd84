"""Worker processes: none outlives its parent. Standard library only."""

import multiprocessing
import os
import signal
import threading


def start(seconds_after_sigterm: float = 0.0) -> None:
    """What a worker process calls first.

    Ctrl-C, and a cluster's SIGTERM, reach the workers together with their parent, which decides what
    becomes of them: it may need them up to where it saves.

    Args:
        seconds_after_sigterm: how long the worker outlives SIGTERM, if its parent does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if seconds_after_sigterm:
        end = (seconds_after_sigterm, os._exit, (1,))
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(*end).start())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
