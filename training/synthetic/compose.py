"""One ticket's subject and text, put together from phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from training.synthetic.draws import Draws
from training.synthetic.grammar import Intent, Pack, Template, compile_template, expand
from training.synthetic.languages import Language
from training.synthetic.noise import roughen, to_html

_ORDER_NUMBERS = tuple(
    map(compile_template, ("{ddddddd}", "{LL}-{ddddd}", "{dddd}-{ddddd}", "{LL}{LL}{dddd}", "100{ddddd}", "{LLL}{ddd}"))
)
# Slots that mean the same thing wherever they stand in one ticket.
_KEPT = frozenset(
    [
        "order",
        "product",
        "me",
        "family",
        "name",
        "email",
        "phone",
        "agent",
        "hotel",
        "flight",
        "place",
        "restaurant",
        "bank",
        "merchant",
    ]
)
_MAIL_HOSTS = ("example.com", "example.org", "mail.example", "post.example", "office.example")

# How many sentences a ticket has beyond its matter: quantiles, by channel.
_EXTRAS: Mapping[str, tuple[float, ...]] = {
    "chat": (0.0, 0.0, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0),
    "api": (0.0, 0.0, 1.0, 1.5, 2.0, 3.0, 6.0),
    "web": (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 11.0),
    "email": (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 30.0),
}
_NO_SUBJECT: Mapping[str, float] = {"chat": 0.85, "api": 0.4, "web": 0.1, "email": 0.03}

# Shares of tickets that do not say what they want, that use words of a similar matter, and that mention another one.
VAGUE = 0.01
BLENDED = 0.15
DISTRACTED = 0.12


class Writer:
    """Writes the tickets of one tenant in one language.

    Args:
        language: of the text.
        pack: its phrases for the tenant's industry.
        tenant: the tenant's name; its company's name and support address are made from it.
        draws: decides what the tenant sells and how it numbers orders, at once; not kept.
    """

    def __init__(self, language: Language, pack: Pack, tenant: str, draws: Draws) -> None:
        self.language = language
        self.pack = pack
        words = tenant.replace("_", "-").split("-")
        self.company = " ".join(word.capitalize() for word in words if word and not word.isdigit()) or tenant
        self.support = f"support@{tenant}.example"
        self.order_number = draws.pick(_ORDER_NUMBERS)
        products = draws.shuffled(pack.slots["product"])
        # The last of these is launched late, so that the words of later tickets differ a little from earlier ones.
        self.products = tuple(products[: max(4, len(products) * 2 // 3)])

    def reply(self, intent: Intent, draws: Draws) -> str:
        """The reply of the macro for an intent, as this company words it."""
        fill = {"company": self.company, "product": expand(self.products[0], draws, str)}
        return self.language.gap.join(expand(line, draws, fill.__getitem__) for line in intent.reply)

    def write(
        self,
        intent: Intent,
        *,
        partner: Intent | None,
        other: Intent | None,
        channel: str,
        created_at: datetime,
        late: bool,
        draws: Draws,
    ) -> tuple[str, str]:
        """Subject and body of a ticket.

        Args:
            intent: what it is about.
            partner: nearly the same matter, which some phrases may come from.
            other: another matter that may be mentioned.
            channel: email, web, chat or api.
            created_at: when it is written.
            late: whether the late products exist by then.
            draws: decides everything else.
        """
        return _Draft(self, channel, created_at, late, draws).write(intent, partner, other)


class _Draft:
    """One ticket while it is written."""

    __slots__ = ("channel", "created_at", "draws", "language", "late", "pack", "values", "writer")

    def __init__(self, writer: Writer, channel: str, created_at: datetime, late: bool, draws: Draws) -> None:
        self.writer = writer
        self.language = writer.language
        self.pack = writer.pack
        self.channel = channel
        self.created_at = created_at
        self.late = late
        self.draws = draws
        self.values: dict[str, str] = {"company": writer.company, "support": writer.support}

    def write(self, intent: Intent, partner: Intent | None, other: Intent | None) -> tuple[str, str]:
        draws = self.draws
        blend = partner if partner is not None and draws.chance(BLENDED) else None
        mention = other if draws.chance(DISTRACTED) else None
        body = roughen(self._matter(intent, blend, mention), draws, self.language)
        body = self._frame(body)
        if self.channel in ("email", "api") and draws.chance(0.05):
            body = to_html(body, draws)
        return self._subject(blend or intent), body

    def _matter(self, intent: Intent, blend: Intent | None, mention: Intent | None) -> str:
        draws = self.draws
        phrases = self.pack.phrases
        extras = int(draws.quantile(_EXTRAS[self.channel]) + 0.5)
        core = self._any(phrases["vague"] if draws.chance(VAGUE) else intent.cores)
        story = [core]
        asks: list[str] = []
        source = blend or intent
        if draws.chance(0.1):
            story.append(self._any(phrases["urgency"]))
        if draws.chance(0.65):
            specific = source.asks and draws.chance(0.55)
            asks.append(self._any(source.asks if specific else phrases["ask"]))
        if extras:
            details = draws.shuffled(source.details)[: min(extras, 2)]
            asides = draws.shuffled(phrases["aside"])[: max(0, extras - len(details))]
            rest = extras - len(details) - len(asides)
            if extras > 4:
                story.append(self._any(source.cores))
            middle = [self._say(line) for line in draws.shuffled((*details, *asides))]
            if draws.chance(0.25):
                middle, story = story, middle
            story += middle
            story += [self._any(phrases["opening"]) for _ in range(min(rest, 2))]
            if draws.chance(0.35):
                story.insert(0, self._any(phrases["opening"]))
        if mention is not None:
            aside = expand(draws.pick(mention.cores), draws, self._fill)
            self.values["other"] = aside.rstrip("?")
            line = self._any(phrases["also"])
            story.insert(0 if draws.chance(0.15) else len(story), line)
        if draws.chance(0.35):
            asks.append(self._any(phrases["thanks"]))
        gap = self.language.gap
        if len(story) > 5:
            cut = draws.between(2, len(story) - 2)
            return "\n\n".join((gap.join(story[:cut]), gap.join(story[cut:] + asks)))
        if asks and self.channel != "chat" and draws.chance(0.3):
            return f"{gap.join(story)}\n{gap.join(asks)}"
        return gap.join(story + asks)

    def _frame(self, body: str) -> str:
        draws = self.draws
        phrases = self.pack.phrases
        if self.channel == "chat":
            if draws.chance(0.4):
                body = f"{self._raw(phrases['chat_greeting'])}{draws.pick((' ', ', ', '! ', chr(10)))}{body}"
            return body + draws.pick((" 🙏", " 😡", " :(", " 🙂", "!!", "??")) if draws.chance(0.12) else body
        if draws.chance(0.65):
            body = f"{self._raw(phrases['greeting'])}{draws.pick((chr(10) * 2, chr(10), chr(10), ' '))}{body}"
        if self.channel == "api":
            return body
        if draws.chance(0.55 if self.channel == "email" else 0.25):
            lines = [self._raw(phrases["signature"])]
            if draws.chance(0.7):
                lines.insert(0, self._raw(phrases["closing"]))
            body = f"{body}\n\n" + "\n".join(lines)
        if self.channel == "email":
            if draws.chance(0.15):
                body = f"{body}\n\n{self._raw(phrases['device'])}"
            if draws.chance(0.1):
                quoted = [self._raw((line,)) for line in phrases["quote"] if draws.chance(0.6)]
                body = "\n".join((body, "", self._raw(phrases["quote_head"]), *(f"> {line}" for line in quoted)))
        return body

    def _subject(self, intent: Intent) -> str:
        draws = self.draws
        if draws.chance(_NO_SUBJECT[self.channel]):
            return ""
        phrases = self.pack.phrases
        subject = self._raw(phrases["subject"] if draws.chance(0.35) else intent.subjects)
        if draws.chance(0.6) and self.language.capitals:
            subject = subject[:1].upper() + subject[1:]
        if draws.chance(0.08):
            subject = self._raw(phrases["subject_prefix"]) + subject
        return roughen(subject, draws, self.language) if draws.chance(0.3) else subject

    def _raw(self, options: Sequence[Template]) -> str:
        return expand(self.draws.pick(options), self.draws, self._fill)

    def _any(self, options: Sequence[Template]) -> str:
        return self._say(self.draws.pick(options))

    def _say(self, template: Template) -> str:
        # Empty alternatives leave gaps behind.
        text = expand(template, self.draws, self._fill).replace("  ", " ").strip(" ,、")
        asks = text.partition(" ")[0].lower() in self.language.asking
        if self.language.capitals:
            # Spanish questions and the like start with a mark.
            at = 1 if text[:1] in "¿¡" else 0
            text = text[:at] + text[at : at + 1].upper() + text[at + 1 :]
        if text[-1:] in ".!?。":
            return text
        if asks and self.draws.chance(0.8):
            return text + "?"
        return text + ("!" if self.draws.chance(0.04) else self.language.end)

    def _fill(self, name: str) -> str:
        if (value := self.values.get(name)) is not None:
            return value
        value = self._value(name)
        if name in _KEPT:
            self.values[name] = value
        return value

    def _value(self, name: str) -> str:  # noqa: PLR0911  # one return a kind of slot
        draws = self.draws
        if name in ("date", "future"):
            away = draws.between(1, 20) if name == "date" else -draws.between(2, 45)
            return self._date(draws.pick(self.language.dates), self.created_at - timedelta(days=away))
        if name in ("product", "product2"):
            products = self.writer.products
            return expand(products[draws.below(len(products) - (0 if self.late else 1))], draws, self._fill)
        if name == "order_no":
            return expand(self.writer.order_number, draws, self._fill)
        if name == "name":
            family, me = self._fill("family"), self._fill("me")
            return f"{me} {family}" if self.language.capitals else family + me
        if name == "email":
            name = f"{self._fill('me')}.{self._fill('family')}".lower()
            return f"{name if name.isascii() else 'user'}{draws.between(1, 99)}@{draws.pick(_MAIL_HOSTS)}"
        if name in ("date_long", "clock", "weekday_short"):
            before = self.created_at - timedelta(minutes=draws.between(300, 9000))
            if name == "clock":
                return f"{before:%H:%M}"
            if name == "weekday_short":
                return self.language.weekdays[before.weekday()]
            return f"{self._date(self.language.dates[0], before)} {before.year}"
        alias = {"me": "first", "family": "last", "flight2": "flight", "hotel2": "hotel", "plan2": "plan"}
        return expand(draws.pick(self.pack.slots[alias.get(name, name)]), draws, self._fill)

    def _date(self, form: str, day: datetime) -> str:
        return form.format(d=day.day, m=day.month, month=self.language.months[day.month - 1])
