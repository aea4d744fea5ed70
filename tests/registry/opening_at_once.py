"""Processes that open an MLflow at the same moment: what each of them does and says.

What takes seconds is imported once; the processes are forks of that one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import registry

_CODE = """
import os, sys
from contextlib import suppress
from pathlib import Path
from registry.errors import TrackingUnavailable
from registry.settings import StoreSettings
from registry.tracking.models import Tracking
uri, store, artifacts, count = sys.argv[1:]
Path(f"{store}.none").write_text("not a database" * 100)
with suppress(TrackingUnavailable):  # what it imports on the way counts
    Tracking(tracking_uri=f"sqlite:///{store}.none", store=StoreSettings(url=store)).prepare()
waiting, start = os.pipe()
for _ in range(int(count)):
    if not os.fork():
        os.close(start)
        os.read(waiting, 1)  # until the parent lets go
        code = 1
        try:
            Tracking(tracking_uri=uri, store=StoreSettings(url=store), artifact_location=artifacts or None).prepare()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
os.close(start)
sys.exit(max(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(int(count))))
"""


def open_at_once(uri: str, store: Path, *, artifacts: Path | None = None, count: int = 3) -> str:
    """Have so many processes open it; what they printed on both outputs. Fails where one of them does."""
    arguments = [sys.executable, "-c", _CODE, uri, str(store), str(artifacts or ""), str(count)]
    root = Path(registry.__file__).parents[1]
    done = subprocess.run(
        arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
