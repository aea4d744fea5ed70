from registry.tenant_settings import TenantSettings
from training.settings import TrainingSettings


def test_a_tenant_may_have_every_setting_of_its_own() -> None:
    of_suggestions = {"exclude_macros", "off_groups"}
    assert TenantSettings.model_fields.keys() - of_suggestions == TrainingSettings.model_fields.keys()
    assert TrainingSettings().overlaid(TenantSettings(exclude_macros=("m1",))) == TrainingSettings()


def test_the_later_ones_win_and_none_leaves_it_as_it_is() -> None:
    run = TrainingSettings(months=12, precision=0.7)
    found = run.overlaid(TenantSettings(precision=0.9, weights="int8"), TenantSettings(precision=0.6))
    assert found == TrainingSettings(months=12, precision=0.6, weights="int8")
    assert run.overlaid(TenantSettings()) == run


def test_the_defaults_are_the_rule_as_users_know_it() -> None:
    default = TrainingSettings()
    assert (default.least_tickets, default.least_macros, default.months) == (100, 3, 9)
