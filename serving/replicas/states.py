"""What becomes of a replica, as a pure function of what happens to it.

    starting ──listens──▶ running ──ended──▶ waiting ──its time has come──▶ starting
       │ ended: waiting      │                  │
       │ refused: stopped    │                  │
       └────── stop, restart ┴───▶ stopping     └── stop: stopped; restart: starting
                                      │ too slow: killed
                                      └── ended ──▶ starting (restart) or stopped (stop)

- The wait after an end that nobody asked for doubles with each one, up to 30 s; a minute of running forgets them.
- A process that ends with a refusal (exit code 1 or 2) before it ever listened tells of settings that cannot work, which
  no retry mends: the supervisor gives up and ends the others.
- One that does not listen within two minutes, or does not end within the time of its drain, is killed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
START_SECONDS = 120.0
# A server cuts what is under way after ten seconds, and then has its store and threads to close.
STOP_SECONDS = 20.0


class Phase(enum.Enum):
    """Where a replica is."""

    STARTING = enum.auto()
    RUNNING = enum.auto()
    STOPPING = enum.auto()
    WAITING = enum.auto()
    STOPPED = enum.auto()


class Event(enum.Enum):
    """What happened to one."""

    LISTENING = enum.auto()
    ENDED = enum.auto()
    REFUSED = enum.auto()  # ended, with an exit code that tells of a mistake in its settings
    TIME = enum.auto()  # nothing, but time has passed
    STOP = enum.auto()
    RESTART = enum.auto()


class Action(enum.Enum):
    """What is to be done about it."""

    NOTHING = enum.auto()
    SPAWN = enum.auto()
    TERMINATE = enum.auto()
    KILL = enum.auto()
    GIVE_UP = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What is known of one.

    Attributes:
        phase: where it is.
        due: when `Event.TIME` has something to say; None is never.
        deaths: ends in a row that nobody asked for.
        proven: it has listened once, so its settings are good.
        wanted: whether it is started again once it has stopped.
    """

    phase: Phase
    due: float | None
    deaths: int = 0
    proven: bool = False
    wanted: bool = True


def first_state(now: float) -> Replica:
    """A replica that has just been started."""
    return Replica(phase=Phase.STARTING, due=now + START_SECONDS)


def wait_seconds(deaths: int) -> float:
    """How long to wait before the next start, after so many ends in a row."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(deaths - 1, 16), MAX_WAIT_SECONDS)


def next_action(state: Replica, event: Event, now: float) -> tuple[Replica, Action]:
    """What comes of an event: the new state, and the one thing to do.

    Args:
        state: as this function or `first_state` made it.
        event: `ENDED` and `REFUSED` only come while there is a process.
        now: seconds of a clock that never goes back.
    """
    match event:
        case Event.ENDED | Event.REFUSED:
            return _ended(state, now, refused=event is Event.REFUSED)
        case Event.STOP | Event.RESTART:
            return _told(state, now, wanted=event is Event.RESTART)
        case Event.LISTENING if state.phase is Phase.STARTING:
            return replace(state, phase=Phase.RUNNING, due=now + HEALTHY_SECONDS, proven=True), Action.NOTHING
        case Event.TIME if state.due is not None and now >= state.due:
            return _late(state, now)
    return state, Action.NOTHING


def _ended(state: Replica, now: float, *, refused: bool) -> tuple[Replica, Action]:
    if state.phase is Phase.STOPPING:
        return _start(state, now) if state.wanted else (_stopped(state), Action.NOTHING)
    if refused and not state.proven:
        return _stopped(state), Action.GIVE_UP
    deaths = state.deaths + 1
    return replace(state, phase=Phase.WAITING, due=now + wait_seconds(deaths), deaths=deaths), Action.NOTHING


def _told(state: Replica, now: float, *, wanted: bool) -> tuple[Replica, Action]:
    match state.phase:
        case Phase.STARTING | Phase.RUNNING:
            state = replace(state, phase=Phase.STOPPING, due=now + STOP_SECONDS, deaths=0, wanted=wanted)
            return state, Action.TERMINATE
        case Phase.WAITING:
            return _start(replace(state, deaths=0), now) if wanted else (_stopped(state), Action.NOTHING)
        case Phase.STOPPING:
            # Who was told to stop for good is not started again by a restart that comes late.
            return replace(state, wanted=state.wanted and wanted), Action.NOTHING
    return state, Action.NOTHING


def _late(state: Replica, now: float) -> tuple[Replica, Action]:
    match state.phase:
        case Phase.WAITING:
            return _start(state, now)
        case Phase.RUNNING:
            return replace(state, due=None, deaths=0), Action.NOTHING
    return replace(state, due=None), Action.KILL  # starting or stopping


def _start(state: Replica, now: float) -> tuple[Replica, Action]:
    return replace(state, phase=Phase.STARTING, due=now + START_SECONDS, wanted=True), Action.SPAWN


def _stopped(state: Replica) -> Replica:
    return replace(state, phase=Phase.STOPPED, due=None, wanted=False)
