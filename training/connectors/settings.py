"""A help desk's credentials: from the environment or a file, never an argument, which every process of the machine can read."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import InvalidInput
from registry.files import read_whole

_MOST_BYTES = 16 * 1024


class _Credentials(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    token: SecretStr | None = None
    token_file: Path | None = None
    email: str | None = None

    def secret(self) -> str:
        """The token. Raises InvalidInput where there is none, or none that fits into a header."""
        prefix = self.model_config.get("env_prefix", "")
        found = self.token.get_secret_value() if self.token else ""
        if not found and self.token_file is not None:
            found = read_whole(self.token_file, _MOST_BYTES, error=InvalidInput).decode("utf-8", "replace")
        found = found.strip()
        if not found:
            raise InvalidInput(
                "there is no token for the help desk",
                remedy=f"Set {prefix}TOKEN, or {prefix}TOKEN_FILE to a file that has it.",
            )
        if not found.isascii() or not found.isprintable() or " " in found:
            raise InvalidInput("the help desk's token is none", remedy="It is one line of letters, digits and signs.")
        return found


class ZendeskSettings(_Credentials):
    """`MACROFLEET_ZENDESK_TOKEN` or `…_TOKEN_FILE`, and `…_EMAIL` for an API token; an OAuth token has none."""

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_ZENDESK_")


class GorgiasSettings(_Credentials):
    """`MACROFLEET_GORGIAS_TOKEN` or `…_TOKEN_FILE`: the API key; `…_EMAIL`: its user's."""

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_GORGIAS_")


class IntercomSettings(_Credentials):
    """`MACROFLEET_INTERCOM_TOKEN` or `…_TOKEN_FILE`: an access token."""

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_INTERCOM_")


class ChatwootSettings(_Credentials):
    """`MACROFLEET_CHATWOOT_TOKEN` or `…_TOKEN_FILE`: an administrator's access token."""

    model_config = SettingsConfigDict(env_prefix="MACROFLEET_CHATWOOT_")
