"""The supervisor: its decisions against a clock of the test's own, its processes with cheap ones, and two real servers."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidInput
from serving.replicas.addresses import replica_environments
from serving.replicas.group import Replicas, run_replicas
from serving.replicas.states import (
    FIRST_WAIT_SECONDS,
    HEALTHY_SECONDS,
    MAX_WAIT_SECONDS,
    START_SECONDS,
    STOP_SECONDS,
    Action,
    Event,
    Phase,
    Replica,
    first_state,
    next_action,
    wait_seconds,
)
from serving.settings import ServingSettings
from tests.serving.helpers import eventually
from tests.serving.supervised import fakes, is_alive, until_listening


class Machine:
    """One replica and the process that its actions start and end, on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state = first_state(self.now)
        self.lives = True
        self.actions: list[Action] = [Action.SPAWN]

    def tell(self, event: Event) -> Action:
        self.state, action = next_action(self.state, event, self.now)
        self.actions.append(action)
        if action is Action.SPAWN:
            assert not self.lives, "two processes of one replica"
            self.lives = True
        if action is Action.KILL:
            assert self.lives
        return action

    def end(self, event: Event = Event.ENDED) -> Action:
        self.lives = False
        return self.tell(event)

    def wait(self, seconds: float) -> Action:
        self.now += seconds
        return self.tell(Event.TIME)


def running() -> Machine:
    machine = Machine()
    machine.tell(Event.LISTENING)
    assert machine.state.phase is Phase.RUNNING
    return machine


def test_what_dies_again_and_again_is_started_less_and_less_often() -> None:
    machine = running()
    waits = []
    for _ in range(12):
        assert machine.end() is Action.NOTHING
        assert machine.state.due is not None
        waits.append(machine.state.due - machine.now)
        assert machine.wait(waits[-1] * 0.99) is Action.NOTHING
        assert machine.wait(waits[-1] * 0.01) is Action.SPAWN
        machine.tell(Event.LISTENING)
    assert waits[0] == FIRST_WAIT_SECONDS
    assert waits[-1] == MAX_WAIT_SECONDS
    assert all(
        later == pytest.approx(min(2 * earlier, MAX_WAIT_SECONDS)) for earlier, later in itertools.pairwise(waits)
    )


def test_a_minute_of_running_forgets_what_was_before() -> None:
    machine = running()
    for _ in range(5):
        machine.end()
        machine.wait(MAX_WAIT_SECONDS)
        machine.tell(Event.LISTENING)
    assert machine.wait(HEALTHY_SECONDS - 1) is Action.NOTHING
    assert machine.state.deaths == 5
    assert machine.wait(1) is Action.NOTHING
    assert machine.state == Replica(phase=Phase.RUNNING, due=None, deaths=0, proven=True)


def test_settings_that_are_refused_at_the_first_start_are_no_crash() -> None:
    machine = Machine()
    assert machine.end(Event.REFUSED) is Action.GIVE_UP
    assert machine.state.phase is Phase.STOPPED


def test_a_refusal_of_what_has_run_before_may_pass() -> None:
    machine = running()
    assert machine.end(Event.REFUSED) is Action.NOTHING
    assert machine.state.phase is Phase.WAITING


def test_a_crash_at_the_first_start_is_tried_again() -> None:
    machine = Machine()
    assert machine.end() is Action.NOTHING
    assert machine.wait(FIRST_WAIT_SECONDS) is Action.SPAWN


def test_a_start_that_hangs_is_killed_and_tried_again() -> None:
    machine = Machine()
    assert machine.wait(START_SECONDS - 1) is Action.NOTHING
    assert machine.wait(1) is Action.KILL
    assert machine.wait(START_SECONDS) is Action.NOTHING  # once is enough
    machine.end()
    assert machine.wait(FIRST_WAIT_SECONDS) is Action.SPAWN


def test_an_end_that_hangs_is_killed() -> None:
    machine = running()
    assert machine.tell(Event.STOP) is Action.TERMINATE
    assert machine.wait(STOP_SECONDS - 1) is Action.NOTHING
    assert machine.wait(1) is Action.KILL
    machine.end()
    assert machine.state.phase is Phase.STOPPED


def test_a_restart_starts_as_soon_as_the_former_process_has_ended() -> None:
    machine = running()
    assert machine.tell(Event.RESTART) is Action.TERMINATE
    assert machine.tell(Event.RESTART) is Action.NOTHING
    assert machine.end() is Action.SPAWN
    assert machine.state.phase is Phase.STARTING


def test_a_restart_does_not_wait_for_the_next_try() -> None:
    machine = running()
    machine.end()
    assert machine.tell(Event.RESTART) is Action.SPAWN


def test_what_has_stopped_for_good_is_not_restarted() -> None:
    machine = running()
    machine.tell(Event.STOP)
    assert machine.tell(Event.RESTART) is Action.NOTHING
    assert machine.end() is Action.NOTHING
    assert machine.state.phase is Phase.STOPPED
    assert machine.tell(Event.RESTART) is Action.NOTHING


@given(st.lists(st.one_of(st.sampled_from(list(Event)), st.floats(0, 200)), max_size=60))
def test_whatever_happens(happenings: list[Event | float]) -> None:
    machine = Machine()
    told_to_stop = False
    for happening in happenings:
        if isinstance(happening, float):
            action = machine.wait(happening)
        elif happening in {Event.ENDED, Event.REFUSED}:
            if not machine.lives:
                continue
            action = machine.end(happening)
        else:
            told_to_stop |= happening is Event.STOP
            action = machine.tell(happening)
        state = machine.state
        assert machine.lives == (state.phase in {Phase.STARTING, Phase.RUNNING, Phase.STOPPING})
        assert state.phase is not Phase.WAITING or (
            state.due is not None and state.due <= machine.now + MAX_WAIT_SECONDS
        )
        assert not (told_to_stop and action is Action.SPAWN)
    # From anywhere it comes to an end when told to, even if its process only listens to force.
    machine.tell(Event.STOP)
    machine.wait(STOP_SECONDS)
    if machine.lives:
        assert Action.KILL in machine.actions
        machine.end()
    assert machine.state.phase is Phase.STOPPED


@given(st.integers(1, 10_000))
def test_waits_are_bounded(deaths: int) -> None:
    assert FIRST_WAIT_SECONDS <= wait_seconds(deaths) <= MAX_WAIT_SECONDS


def ports(*, replicas: int, **settings: object) -> list[tuple[int, int]]:
    made = replica_environments(ServingSettings.model_validate(settings), replicas)
    return [(int(one["MACROFLEET_PORT"]), int(one["MACROFLEET_OPERATOR_PORT"])) for one in made]


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MACROFLEET_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings")
def test_ports_follow_each_other_and_the_operators_come_after_the_publics() -> None:
    assert ports(replicas=1) == [(8000, 8001)]
    assert ports(replicas=3) == [(8000, 8003), (8001, 8004), (8002, 8005)]
    assert ports(replicas=2, port=9000) == [(9000, 8001), (9001, 8002)]
    assert ports(replicas=2, port=9000, operator_port=9100) == [(9000, 9100), (9001, 9101)]
    assert ports(replicas=2, port=0, operator_port=0) == [(0, 0), (0, 0)]


@pytest.mark.usefixtures("_no_settings")
def test_ports_that_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="would share ports"):
        ports(replicas=2, port=8000, operator_port=8001)
    with pytest.raises(InvalidInput, match="there are no 2 ports from 65535 on"):
        ports(replicas=2, port=65_535)
    with pytest.raises(InvalidInput, match="1 to 256 replicas"):
        run_replicas(ServingSettings(), Replicas(least=0, most=0))


@pytest.mark.usefixtures("_no_settings")
def test_all_replicas_have_one_key() -> None:
    keys = {one["MACROFLEET_SIGNING_KEY"] for one in replica_environments(ServingSettings(), 3)}
    assert len(keys) == 1
    assert len(keys.pop()) >= 16


@pytest.mark.anyio
async def test_one_that_is_killed_comes_back_where_it_was_and_the_others_stay(tmp_path: Path) -> None:
    with fakes(tmp_path, 3) as supervisor:
        urls = await supervisor.urls()
        assert len({public for public, _ in urls}) == 3
        before = [supervisor.started(number) for number in range(3)]
        os.kill(before[1][0], signal.SIGKILL)
        await eventually(lambda: len(supervisor.started(1)) == 2)
        async with httpx.AsyncClient() as client:
            await until_listening(client, urls[1][0])
        assert await supervisor.urls() == urls
        assert [supervisor.started(0), supervisor.started(2)] == [before[0], before[2]]

        assert await supervisor.stop() == 0
        assert sorted(number for what, number, _ in supervisor.record() if what == "stopped") == [0, 1, 2]
        assert not any(is_alive(pid) for _, _, pid in supervisor.record())
        assert not supervisor.ready_file.exists()
        (ended,) = [line for line in supervisor.log.splitlines() if "a replica ended" in line]
        assert json.loads(ended)["replica"] == 1
        assert json.loads(ended)["exit_code"] == -signal.SIGKILL


@pytest.mark.anyio
async def test_a_rolling_restart_takes_the_next_when_the_one_before_is_ready(tmp_path: Path) -> None:
    with fakes(tmp_path, 3) as supervisor:
        await supervisor.urls()
        unready = tmp_path / "unready"
        unready.touch()
        supervisor.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(supervisor.started(0)) == 2)
        # Its answers are what the supervisor acts on: it has had two, and listened to them.
        await eventually(lambda: len([what for what, _, _ in supervisor.record() if what == "asked"]) > 2)
        assert [len(supervisor.started(number)) for number in range(3)] == [2, 1, 1]
        unready.unlink()
        await eventually(lambda: "all replicas were restarted" in supervisor.log)
        steps = [(what, number) for what, number, _ in supervisor.record() if what != "asked"][3:]
        assert steps == [(what, number) for number in range(3) for what in ("stopped", "started")]
        assert await supervisor.stop() == 0


@pytest.mark.anyio
async def test_a_refusal_at_the_start_ends_them_all(tmp_path: Path) -> None:
    with fakes(tmp_path, 3, fault="refuses") as supervisor:
        assert await supervisor.ended() == 1
        assert "a replica cannot start" in supervisor.log
        assert len(supervisor.started(1)) == 1
        assert not any(is_alive(pid) for _, _, pid in supervisor.record())


@pytest.mark.anyio
async def test_replicas_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with fakes(tmp_path, 2, fault="watches") as supervisor:
        await supervisor.urls()
        supervisor.process.kill()
        await eventually(lambda: not any(is_alive(pid) for _, _, pid in supervisor.record()))
        assert sorted(number for what, number, _ in supervisor.record() if what == "stopped") == [0, 1]


@pytest.mark.anyio
async def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with fakes(tmp_path, 1, fault="does not end", stop_seconds=0.1) as supervisor:
        await supervisor.urls()
        assert await supervisor.stop() == 0
        assert [what for what, _, _ in supervisor.record()] == ["started", "stopped"]
        assert "killing a replica that takes too long" in supervisor.log


@pytest.mark.anyio
async def test_an_interrupt_that_comes_twice_waits_for_nobody(tmp_path: Path) -> None:
    with fakes(tmp_path, 1, fault="does not end", stop_seconds=60) as supervisor:
        await supervisor.urls()
        supervisor.process.send_signal(signal.SIGINT)
        await eventually(lambda: ("stopped", 0) in [(what, number) for what, number, _ in supervisor.record()])
        supervisor.process.send_signal(signal.SIGINT)
        assert await supervisor.ended() == -signal.SIGINT
        assert not any(is_alive(pid) for _, _, pid in supervisor.record())
