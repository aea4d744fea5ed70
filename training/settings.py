"""What decides when a tenant is trained, and on what terms: the run's settings, and over them the tenant's own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from registry.tenant_settings import (
    Acceptance,
    Count,
    Days,
    Months,
    Precision,
    ProgramChoice,
    Promotion,
    TenantSettings,
    Weights,
)


class TrainingSettings(BaseModel):
    """Settings that a tenant may have of its own; `registry.tenant_settings.TenantSettings` says what each is."""

    model_config = ConfigDict(frozen=True)

    program: ProgramChoice = "bag"
    precision: Precision = 0.8
    weights: Weights = "float32"
    least_tickets: Count = 100
    least_macros: Count = 3
    months: Months = 9
    keep_months: Months = 24
    retrain_after_days: Days = 30
    least_acceptance: Acceptance = 0.2
    promotion: Promotion = "auto"

    def overlaid(self, *own: TenantSettings) -> TrainingSettings:
        """These, but where `own` say otherwise; the later ones win."""
        values = {name: getattr(self, name) for name in TrainingSettings.model_fields}
        for settings in own:
            values |= settings.model_dump(exclude_none=True, include=set(TrainingSettings.model_fields))
        return TrainingSettings.model_validate(values)
