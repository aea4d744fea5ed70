"""Structured logs: one JSON object a line on stderr. What agents and customers wrote never gets into one."""

from __future__ import annotations

import json
import logging
import os
import time
from contextvars import ContextVar

from registry.errors import MacrofleetError
from serving.stacks import stack_of

# The request that the current task works for, and the tenant it names; empty outside of one.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
TENANT: ContextVar[str] = ContextVar("tenant", default="")

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, logger, message, request id, tenant and whatever was passed as `extra`.

    Of an exception it keeps the type and the frames. The text of one that is not the domain's is left out: a library
    may have quoted the input it choked on, and that input is somebody's ticket.

    Args:
        replica: which of the replicas on this machine writes; empty where there is but one process.
    """

    def __init__(self, replica: str = "") -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in (("replica", self._replica), ("request_id", REQUEST_ID.get()), ("tenant", TENANT.get())):
            if value:
                fields[name] = value
        fields |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["error"] = type(error).__name__
            if isinstance(error, MacrofleetError):
                fields["problem"] = str(error)
            else:
                fields["stack"] = stack_of(error)
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure_logs() -> None:
    """Send every log record of the process to stderr as JSON; `MACROFLEET_REPLICA` names the process in each."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(os.environ.get("MACROFLEET_REPLICA", "")))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
