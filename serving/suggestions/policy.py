"""What may be suggested, and to whom: a tenant's catalogue and rules, made ready for the path of a request. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

from registry.catalogue import Macro, base_language
from registry.model.bundle import Label
from registry.suggestion_rules import SuggestionRules
from serving.suggestions.choice import Shown

# Of masks: agents of a tenant stand in few different combinations of the groups that matter to its macros.
_REMEMBERED = 64
# In an audience: a language that none of the tenant's macros has.
_OTHER_LANGUAGE = "-"


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is to see a suggestion, as far as it matters to a policy; two requests with equal ones may see the same macros.

    Attributes:
        groups: those of the agent's that some macro is restricted to.
        language: of the ticket; None where it is not known, or no macro has one.
    """

    groups: frozenset[str]
    language: str | None


EVERYBODY: Final = Audience(frozenset(), None)
NO_RULES: Final = SuggestionRules()


class Policy:
    """A tenant's macros and rules of one moment. It does not change, but remembers what it has worked out.

    A macro may be shown when it is active, is not personal, is not excluded by the tenant, is for everybody or for one of
    the groups that the request names, and has no locale or one in the ticket's language.

    Args:
        macros: of the catalogue, each id once.
        rules: of the tenant's settings.

    Attributes:
        version: digest over all that answers may depend on: equal for the same catalogue and rules, on every replica.
    """

    def __init__(self, macros: Iterable[Macro], rules: SuggestionRules = NO_RULES) -> None:
        excluded = frozenset(rules.exclude_macros or ())
        self._off = frozenset(rules.off_groups or ())
        self._titles: dict[str, str] = {}
        self._restricted: dict[str, frozenset[str]] = {}
        self._languages: dict[str, str] = {}
        for macro in macros:
            groups = macro.groups
            if not macro.active or macro.id in excluded or (groups is not None and not groups):
                continue
            self._titles[macro.id] = macro.title
            if groups is not None:
                self._restricted[macro.id] = groups
            if (language := base_language(macro.locale)) is not None:
                self._languages[macro.id] = language
        self._groups: frozenset[str] = frozenset().union(*self._restricted.values())
        self._known_languages = frozenset(self._languages.values())
        self._shown: dict[tuple[str, Audience], Shown] = {}
        rows = [
            [macro, title, sorted(self._restricted.get(macro, ())), self._languages.get(macro)]
            for macro, title in sorted(self._titles.items())
        ]
        said = to_json([rows, sorted(self._off)])
        self.version = hashlib.blake2b(said, digest_size=16).hexdigest()

    def is_off(self, groups: Collection[str]) -> bool:
        """Whether somebody in these groups gets no suggestions: one that is switched off is enough."""
        return bool(self._off) and not self._off.isdisjoint(groups)

    def audience(self, groups: Collection[str], locale: str | None) -> Audience:
        """Who asks. Only what this policy knows of is kept, so that there are few different ones whatever is sent.

        Args:
            groups: ids of the agent's groups.
            locale: of the ticket.
        """
        language = base_language(locale) if locale is not None and self._known_languages else None
        if not self._groups or not groups:
            if language is None:
                return EVERYBODY
            known: frozenset[str] = EVERYBODY.groups
        else:
            known = self._groups.intersection(groups)
        if language is not None and language not in self._known_languages:
            language = _OTHER_LANGUAGE
        return Audience(known, language)

    def shown(self, model: str, labels: Sequence[Label], audience: Audience) -> Shown:
        """What of a model's macros an audience may see.

        Args:
            model: its version, which stands for its labels.
        """
        key = (model, audience)
        found = self._shown.get(key)
        if found is None:
            if len(self._shown) >= _REMEMBERED:
                del self._shown[next(iter(self._shown))]
            found = self._shown[key] = Shown(labels, self._titles, (self._may(label.id, audience) for label in labels))
        return found

    def _may(self, macro: str, audience: Audience) -> bool:
        if macro not in self._titles:
            return False
        groups = self._restricted.get(macro)
        if groups is not None and groups.isdisjoint(audience.groups):
            return False
        language = self._languages.get(macro)
        return language is None or audience.language is None or language == audience.language
