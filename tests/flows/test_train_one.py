"""One tenant's training in this process: what goes wrong is its own."""

from __future__ import annotations

import pytest

from flows.training_processes import TenantDone, TenantJob, train_one


def test_a_library_that_panics_is_one_tenants_trouble_in_this_process_too() -> None:
    """Rust's panics are no `Exception`; a Ctrl-C is none either, and goes on."""

    class PanicException(BaseException):
        """As pyo3 names it."""

    class Training:
        def __init__(self, problem: BaseException) -> None:
            self._problem = problem

        def train(self, *_: object, **__: object) -> None:
            raise self._problem

    def trained(problem: BaseException) -> TenantDone:
        return train_one(Training(problem), TenantJob(tenant="acme"), lambda _: None)  # type: ignore[arg-type]

    done = trained(PanicException("a ticket's words"))
    assert (done.outcome.state, "PanicException" in done.outcome.reason) == ("failed", True)
    assert "raise self._problem" in done.where
    assert "words" not in done.outcome.reason + done.where
    with pytest.raises(KeyboardInterrupt):
        trained(KeyboardInterrupt())
