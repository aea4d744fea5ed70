"""`benchmarks.unguarded`, but it masks tickets."""

from __future__ import annotations

from benchmarks.unguarded import main

if __name__ == "__main__":
    main(masks=True)
