"""Python's collector of reference cycles, kept from stopping requests."""

from __future__ import annotations

import gc

# New objects until the youngest are looked through, and how many times that until the older ones are. A batch of requests
# alone makes more than Python's 700, and with thousands of label tables every look at the oldest takes tens of
# milliseconds. At 5,000 a look takes 2 to 7 ms instead of 10 to 15, but beside a scan of the tail the p99.9 of the others
# was 155 to 236 ms in three runs of `macrofleet bench scan`, and 17 and 25 in two at 20,000. Little is left for the
# collector: nothing that holds weights or a ticket is part of a cycle.
_THRESHOLDS = (20_000, 50, 100)


def settle_garbage_collector() -> None:
    """Collect once, leave what is there alone from now on, and look through what comes more rarely.

    A full collection with TensorFlow imported stops the process for 150 ms: once, before it is ready, and never again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
