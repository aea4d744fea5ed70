from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from ruamel.yaml import YAML

from flows.deployments import FLOWS, make_deployments, schedule_of
from flows.identities import Identity, Pools, identity_of
from flows.timetable import Timetable
from registry.errors import InvalidInput

FILE = Path(__file__).parents[2] / "prefect.yaml"


def in_file() -> dict[str, dict[str, Any]]:
    found = YAML(typ="safe").load(FILE)
    return {one["name"]: one for one in found["deployments"]}


def test_the_file_and_the_commands_make_the_same_deployments() -> None:
    made = {one.name: one for one in make_deployments(Timetable())}
    pools = Pools(training="macrofleet", operations="macrofleet-operations")
    assert made.keys() == in_file().keys()
    for name, one in in_file().items():
        assert (one["entrypoint"], one["tags"]) == (made[name].entrypoint, made[name].tags)
        assert one["work_pool"] == {"name": pools.of(name)}
        schedules = made[name].schedules or []
        for given, schedule in zip(one.get("schedules", []), schedules, strict=True):
            assert isinstance(schedule.schedule, CronSchedule)
            assert (given["cron"], given["timezone"]) == (schedule.schedule.cron, schedule.schedule.timezone)
            assert (given["slug"], given["active"]) == (schedule.slug, schedule.active)
        for given, trigger in zip(one.get("triggers", []), made[name].triggers, strict=True):
            assert isinstance(trigger, DeploymentEventTrigger)
            loaded = DeploymentEventTrigger.model_validate(given)
            assert loaded == trigger


def test_a_worker_finds_each_flow_by_its_name() -> None:
    for one in make_deployments(Timetable()):
        assert one.entrypoint is not None
        flow: Flow[Any, Any] = load_flow_from_entrypoint(one.entrypoint, use_placeholder_flow=False)
        assert (flow.name, one.name) == (one.flow_name, one.flow_name)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_parameter_is_explained_to_who_starts_a_flow_by_hand(flow: Flow[Any, Any]) -> None:
    assert flow.description
    for name in parameter_schema(flow).properties:
        assert name in flow.description, "Prefect's page shows the flow's docstring"


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [("at night", "UTC"), ("0 2 * *", "UTC"), ("0 2 * * *", "Middle/Earth"), ("0 2 * * *", "Europe")],
)
def test_what_is_no_timetable_is_said_before_anything_is_deployed(cron: str, timezone: str) -> None:
    with pytest.raises(InvalidInput, match="is no schedule"):
        make_deployments(Timetable(cron=cron, timezone=timezone))


def test_never_switches_an_earlier_schedule_off_instead_of_leaving_it() -> None:
    never = schedule_of(Timetable(cron=None))
    assert (never.active, never.slug) == (False, schedule_of(Timetable()).slug)


def test_a_flow_that_needs_more_rights_goes_to_who_has_them() -> None:
    by_identity: dict[Identity, set[str]] = {}
    for flow in FLOWS:
        by_identity.setdefault(identity_of(flow.name), set()).add(flow.name)
    assert by_identity[Identity.OPERATIONS] == {"collect_garbage", "delete_tenant"}
    assert by_identity[Identity.COPIER] == {"copy_region"}
    three = Pools(training="a", operations="b", copier="c")
    assert [three.of(name) for name in ("retrain_fleet", "delete_tenant", "copy_region")] == ["a", "b", "c"]
    assert (Pools(training="a", operations="b").of("copy_region"), Pools(training="a", operations="b").names) == (
        "b",
        ["a", "b"],
    )
    assert {Pools(training="a").of(flow.name) for flow in FLOWS} == {"a"}
