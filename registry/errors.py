"""The domain's errors. An HTTP status is none of their business: `serving.errors` holds that table."""

from __future__ import annotations


class MacrofleetError(Exception):
    """Something a user can act on: what went wrong, where, and what to do about it.

    Args:
        what: what happened and to which thing, as one clause without a full stop.
        remedy: what the reader can do, as one sentence.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


class InvalidInput(MacrofleetError):
    """Something from outside (a file, a field, a name, a setting) cannot be used as it is."""


class NotPermitted(MacrofleetError):
    """The caller is known, or need not be, and may not do this here."""


class NotAuthenticated(MacrofleetError):
    """The caller has no key, or one that is none (any more). Nobody is told which."""


class AccessUnavailable(MacrofleetError):
    """Nobody can be told from anybody: the API keys were not read yet, or not for too long."""


class KeyNotFound(MacrofleetError):
    """There is no API key with that prefix."""


class DatabaseUnavailable(MacrofleetError):
    """The control plane's database cannot be reached or fails. Traffic does not need it."""


class InvalidTenant(InvalidInput):
    """A tenant's name is not a slug."""


class UnknownMacro(InvalidInput):
    """A label names a macro that the tenant's catalogue does not have."""


class NotEnoughData(MacrofleetError):
    """A tenant has too few examples or macros to train a model."""


class TrainingStopped(MacrofleetError):
    """Training one tenant was ended from outside: by a limit of time or memory, or because its process died."""


class TenantNotFound(MacrofleetError):
    """No such tenant, or none that the caller may know of."""


class TenantDeleted(MacrofleetError):
    """The tenant was deleted while something was done for it; what that had written is gone."""


class ModelNotFound(MacrofleetError):
    """The tenant has no model (version) to serve or show."""


class CatalogueUnavailable(MacrofleetError):
    """A tenant's live macro catalogue was never read, so nothing may be suggested."""


class BundleCorrupt(MacrofleetError):
    """A bundle is not what its manifest, its program or its name says it is."""


class BackupCorrupt(MacrofleetError):
    """A backup lacks something, or has something that is not what was backed up."""


class ProgramCorrupt(MacrofleetError):
    """A program is not what its digest says it is, or does not describe itself."""


class ProgramUntrusted(MacrofleetError):
    """A program's digest is not among those this process may execute."""


class PublishConflict(MacrofleetError):
    """An immutable object exists with other content, or the fleet kept changing under a writer."""


class LeaseHeld(MacrofleetError):
    """Another run works on the tenant."""


class LeaseLost(MacrofleetError):
    """A run may not go on with a tenant: its lease ran out, or another run has taken it over."""


class StoreError(MacrofleetError):
    """The object store refused or failed."""


class ObjectNotFound(StoreError):
    """No object under that key."""


class PreconditionFailed(StoreError):
    """A conditional write lost: the object is not in the state the writer expected."""


class StoreUnavailable(StoreError):
    """The object store cannot be reached, is overloaded, or refuses these credentials."""


class TrackingUnavailable(MacrofleetError):
    """MLflow cannot be reached or fails. Traffic does not need it; a rerun finishes what it was to record."""


class SchedulerUnavailable(MacrofleetError):
    """Prefect's server cannot be reached or fails. What runs left in the store is there without it."""


class ShardTaken(MacrofleetError):
    """A shard was given to another process; what was begun here is that one's to do."""


class HelpDeskUnavailable(MacrofleetError):
    """A help desk's API is not reached, fails, or answers with half a body; a retry may do better."""


class HelpDeskRefused(MacrofleetError):
    """A help desk's API refuses: these credentials, or this request.

    Args:
        status: of the answer; 0 where it is the answer's content that cannot be used.
    """

    def __init__(self, what: str, *, status: int = 0, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.status = status


class WebhookUnavailable(MacrofleetError):
    """The webhook was not reached, or is overloaded; a retry may do better."""


class WebhookRefused(MacrofleetError):
    """The webhook does not take it, and would not another time."""


class Overloaded(MacrofleetError):
    """More work is waiting than may wait."""


class TooManyLoads(Overloaded):
    """More models are to be fetched from the store than may be in a second."""


class FeedbackUnavailable(MacrofleetError):
    """Feedback cannot be kept now: the journal is at its bound, or its disk refuses. Nothing of it was kept.

    Args:
        retry_after_seconds: when a retry may do better.
    """

    def __init__(self, what: str, *, retry_after_seconds: float = 10.0, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class TenantThrottled(MacrofleetError):
    """A tenant asks for more than its share.

    Args:
        bound: which one: "tenant_rate", "tenant_concurrency" or "tenant_queue".
        retry_after_seconds: when a retry may do better.
    """

    def __init__(
        self, what: str, *, bound: str = "tenant_rate", retry_after_seconds: float = 1.0, remedy: str = ""
    ) -> None:
        super().__init__(what, remedy=remedy)
        self.bound = bound
        self.retry_after_seconds = retry_after_seconds


class LoadBackingOff(MacrofleetError):
    """A model failed to load a moment ago and is not tried again yet.

    Args:
        retry_after_seconds: when it is.
    """

    def __init__(self, what: str, *, retry_after_seconds: float = 1.0, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class ModelAlreadyLoaded(MacrofleetError):
    """A model is loaded under that name already."""


class OutOfResources(MacrofleetError):
    """A model does not fit into what memory or disk is left."""


class DeadlineExceeded(MacrofleetError):
    """The answer would come after the caller stopped waiting."""


class NotReady(MacrofleetError):
    """The server is starting, draining, or has never read a fleet."""
