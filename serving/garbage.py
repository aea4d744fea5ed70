"""Python's collector of reference cycles, kept from stopping requests."""

from __future__ import annotations

import gc

# New objects until the youngest are looked through, and how many times that until the older ones are. A batch of requests
# alone makes more than Python's 700, and with thousands of label tables every look at the oldest takes tens of
# milliseconds. A look at 20,000 new ones takes 10 to 15, which is a queue on a server that is busy; at 5,000, 2 to 7. The
# older ones are looked at as rarely as before: of 50 times 5,000, such a look took 35 and 60 ms in a scan of the tail.
# Little is left for the collector: nothing that holds weights or a ticket is part of a cycle.
_THRESHOLDS = (5_000, 200, 100)


def settle_garbage_collector() -> None:
    """Collect once, leave what is there alone from now on, and look through what comes more rarely.

    A full collection with TensorFlow imported stops the process for 150 ms: once, before it is ready, and never again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
