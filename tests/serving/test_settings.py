from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from registry.errors import InvalidInput
from registry.model.program import RELEASED_PROGRAMS
from serving.settings import ServingSettings

DIGESTS = ["a" * 64, "b" * 64]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS", "HOST", "PORT", "INSECURE", "TRUSTED_PROGRAMS", "SIGNING_KEY"):
        monkeypatch.delenv(f"MACROFLEET_{name}", raising=False)


def test_defaults_keep_to_this_machine() -> None:
    settings = ServingSettings()
    assert settings.host == "127.0.0.1"
    assert settings.trusted_programs == set(RELEASED_PROGRAMS.values())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_TRUSTED_PROGRAMS", f" {DIGESTS[0]},{DIGESTS[1]} ,")
    monkeypatch.setenv("MACROFLEET_PORT", "0")
    settings = ServingSettings()
    assert settings.trusted_programs == set(DIGESTS)
    assert settings.port == 0


def test_only_digests_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_TRUSTED_PROGRAMS", "bag")
    with pytest.raises(ValidationError):
        ServingSettings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_fine(host: str) -> None:
    assert ServingSettings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_to_open_other_addresses_takes_a_word(host: str) -> None:
    assert ServingSettings(host=host).access == "keys"
    for name in ("host", "operator_host"):
        with pytest.raises(InvalidInput, match="nobody is asked for an API key"):
            ServingSettings.model_validate({name: host, "access": "open"})
    assert ServingSettings(host=host, access="open", insecure=True).host == host


def test_each_process_draws_its_own_key_and_none_shows() -> None:
    one, other = ServingSettings(), ServingSettings()
    assert one.signing_key != other.signing_key
    assert one.signing_key.get_secret_value() not in repr(one)
    with pytest.raises(ValidationError) as caught:
        ServingSettings(signing_key=SecretStr("short"))
    assert "short" not in str(caught.value).replace("too_short", "")
