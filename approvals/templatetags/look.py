"""How one thing is shown everywhere: states, times, durations, icons, sentences.

Words and colours of states come from `states`; nothing is decided here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from django import template
from django.db import models
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from psycopg.conninfo import make_conninfo

from approvals import access, grants, provisioning, sentences
from approvals.errors import DebugflowError, Invalid, NotAllowed, ProvisionError, WrongState
from approvals.lengths import apart, lasting
from approvals.models import (
    AccessRequest,
    ApiToken,
    Grant,
    RequestStage,
    Review,
    Target,
    TokenScope,
)
from approvals.notify import inbox
from approvals.sentences import event_sentence, headline, unspoofed
from approvals.states import (
    ABANDONED,
    ABANDONED_LOOK,
    GrantState,
    Look,
    RequestState,
    ReviewStanding,
    StageState,
    TokenStanding,
    look,
)
from approvals.views.viewer import viewer
from audit import clock
from audit.zones import zone_of

register = template.Library()
register.filter("sentence", event_sentence)
register.filter("headline", headline)
register.filter("unspoofed", unspoofed)
register.filter("lasting", lasting)
register.filter("apart", apart)


@register.filter
def amount(less: tuple[int | None, str]) -> str:
    """“30 min of read-only”, of a vote's or an outcome's `less`."""
    return unspoofed(sentences.amount(*less))


@register.filter
def spent(length: timedelta) -> str:
    """“23 min”: a length of time that has passed, to the second."""
    return lasting(round(length.total_seconds()))


@register.filter
def as_json(value: Any) -> str:
    """A stored document for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


MACHINES: dict[type[models.Model], type[models.TextChoices]] = {
    AccessRequest: RequestState,
    RequestStage: StageState,
    Grant: GrantState,
}
RISKS = {
    "low": Look("secondary", "gauge"),
    "medium": Look("yellow", "gauge"),
    "high": Look("orange", "flame"),
}

COUNTED = 99  # of what waits for somebody: more would say no more, and take longer on every page

OTHERS_DECIDE = "Others who are named in the chain can decide; the page of the request shows them."
ASK_AN_ADMIN = "A debugflow admin can tell you more; give them the reason below."
NEXT_STEPS = dict.fromkeys(
    ("self_approval", "not_eligible", "wrong_stage", "already_counted", "needed_later"),
    OTHERS_DECIDE,
)
HELP_BY_STATUS: dict[type[DebugflowError], str] = {
    WrongState: "Look at it as it is now, then do what is still to be done.",
    Invalid: "Go back: your browser has kept what you typed. Change it and send it again.",
    ProvisionError: "It is tried again by itself. Owners of the target can look what is wrong.",
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A decoration: whatever it says is said in words beside it."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        static("icons.svg"),
        name,
    )


def _badge(shown: Look, word: str) -> SafeString:
    return format_html(
        '<span class="state tone-{}">{}<span>{}</span></span>',
        shown.colour,
        icon(shown.icon),
        word,
    )


@register.simple_tag(takes_context=True)
def state(context: Mapping[str, Any], obj: AccessRequest | RequestStage | Grant) -> SafeString:
    """The badge of a request, stage or grant. A grant past its end is never shown as active."""
    if isinstance(obj, Grant) and obj.is_abandoned:
        return _badge(ABANDONED_LOOK, ABANDONED)
    machine = MACHINES[type(obj)]
    value = machine(obj.state)
    if isinstance(obj, Grant) and value == GrantState.ACTIVE:
        value = value if grants.is_usable(obj, _now(context)) else GrantState.REVOKING
    return _badge(look(machine, value), str(value.label))


@register.simple_tag(takes_context=True)
def standing(context: Mapping[str, Any], token: ApiToken) -> SafeString:
    """The badge of a token of the API."""
    now_is = token.standing(_now(context))
    return _badge(look(TokenStanding, now_is), str(now_is.label))


@register.simple_tag(takes_context=True)
def review_state(context: Mapping[str, Any], review: Review) -> SafeString:
    """The badge of a review."""
    now_is = review.standing(_now(context))
    return _badge(look(ReviewStanding, now_is), str(now_is.label))


@register.filter
def scope_words(token: ApiToken) -> str:
    """“Read what its account may see; approve and deny, up to medium risk”."""
    words = "; ".join(
        TokenScope(scope).label for scope in TokenScope.values if scope in token.scopes
    )
    return words.capitalize()


@register.simple_tag
def in_words(target: Target, summary: Sequence[str]) -> str:
    """What a level's rights come to, in a sentence; empty where its kind of target tells none."""
    try:
        return provisioning.get(target.kind).in_words(summary)
    except (Invalid, ImportError, AttributeError):
        return ""


@register.filter
def moment(text: str) -> datetime:
    """A time as an Event has it."""
    return datetime.fromisoformat(text)


@register.filter
def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line for line in text.splitlines() if line.strip()), "")


@register.filter
def risk(level: str) -> SafeString:
    return _badge(RISKS[level], f"{level} risk")


@register.simple_tag(takes_context=True)
def when(context: Mapping[str, Any], moment: datetime) -> SafeString:
    """“12 min ago” or “in 3 h”, with the time of the viewer's clock on hover."""
    length = moment - _now(context)
    words = apart(length)
    told = f"in {words}" if length.total_seconds() > 0 else f"{words} ago"
    return format_html(
        '<time datetime="{}" title="{}" data-relative>{}</time>',
        moment.isoformat(),
        _absolute(context, moment),
        told,
    )


@register.simple_tag(takes_context=True)
def due(context: Mapping[str, Any], moment: datetime) -> SafeString:
    """“in 3 min”, or “at once” when its time has come: what workers do next."""
    length = moment - _now(context)
    return format_html(
        '<time datetime="{}" title="{}" data-relative="due">{}</time>',
        moment.isoformat(),
        _absolute(context, moment),
        f"in {apart(length)}" if length.total_seconds() > 0 else "at once",
    )


@register.simple_tag(takes_context=True)
def overdue(context: Mapping[str, Any], grant: Grant) -> bool:
    """Whether it should have ended a while ago and is not cut."""
    return grant.is_overdue(_now(context))


@register.simple_tag(takes_context=True)
def since(context: Mapping[str, Any], moment: datetime) -> SafeString:
    """“12 min”: how long something has been so."""
    return format_html(
        '<time datetime="{}" title="{}" data-relative="bare">{}</time>',
        moment.isoformat(),
        _absolute(context, moment),
        apart(moment - _now(context)),
    )


@register.simple_tag(takes_context=True)
def at(context: Mapping[str, Any], moment: datetime) -> str:
    """The time of the viewer's clock, with its zone."""
    return _absolute(context, moment)


@register.simple_tag(takes_context=True)
def clock_time(context: Mapping[str, Any], moment: datetime) -> SafeString:
    """“11:40”, by the viewer's clock; with its date where that is another day than today."""
    here = moment.astimezone(_zone(context))
    today = _now(context).astimezone(here.tzinfo).date() == here.date()
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        _absolute(context, moment),
        f"{here:%H:%M}" if today else f"{here:%a %d %b, %H:%M}",
    )


@register.simple_tag(takes_context=True)
def until(context: Mapping[str, Any], moment: datetime) -> SafeString:
    """What is left, ticking in the browser; to the minute where there is no script."""
    return format_html(
        '<time class="until" role="timer" datetime="{}" title="{}" data-until>{}</time>',
        moment.isoformat(),
        _absolute(context, moment),
        apart(moment - _now(context)),
    )


def _now(context: Mapping[str, Any]) -> datetime:
    moment = context.get("now")
    return moment if isinstance(moment, datetime) else clock.now()


def _zone(context: Mapping[str, Any]) -> ZoneInfo:
    return zone_of(getattr(context.get("request"), "user", None))


def _absolute(context: Mapping[str, Any], moment: datetime) -> str:
    zone = _zone(context)
    return f"{moment.astimezone(zone):%a %d %b %Y, %H:%M:%S} {zone.key}"


@register.simple_tag(takes_context=True)
def waiting_count(context: Mapping[str, Any]) -> str:
    """How many requests wait for the viewer's vote; “99+” where that is many, “” for none."""
    if "head" in context:
        count = context["head"].count
    else:
        request: HttpRequest = context["request"]
        waiting = AccessRequest.objects.waiting_for(viewer(request)).order_by()
        count = waiting[: COUNTED + 1].count()
    return f"{COUNTED}+" if count > COUNTED else str(count or "")


@register.simple_tag(takes_context=True)
def unread_count(context: Mapping[str, Any]) -> str:
    """How many entries of the viewer's inbox are new; “99+” where that is many, “” for none."""
    count = inbox.unread(viewer(context["request"])).order_by()[: COUNTED + 1].count()
    return f"{COUNTED}+" if count > COUNTED else str(count or "")


@register.simple_tag(takes_context=True)
def where_it_stands(context: Mapping[str, Any]) -> AccessRequest | Grant | None:
    """What the refused address was about, as it is now; None if the viewer may not see it."""
    request: HttpRequest = context["request"]
    match = request.resolver_match
    name = (match.url_name or "") if match else ""
    pk = int(match.kwargs.get("pk", 0)) if match else 0
    if name.startswith("request"):
        asked = access.visible_requests(viewer(request)).select_related("level", "target")
        return asked.filter(pk=pk).first()
    if name.startswith("grant-"):
        return access.visible_grants(viewer(request)).filter(pk=pk).first()
    return None


@register.filter
def next_step(error: DebugflowError) -> str:
    """Who can help after a refusal, and what to do; the message itself says why."""
    if isinstance(error, NotAllowed) and error.code in NEXT_STEPS:
        return NEXT_STEPS[error.code]
    return HELP_BY_STATUS.get(type(error), ASK_AN_ADMIN)


@register.filter
def get(mapping: Mapping[Any, Any], key: Any) -> Any:
    return mapping.get(key)


@register.filter
def psql(connection: Mapping[str, Any]) -> str:
    """The command line, without the password: it would stay in the shell's history."""
    return f"psql {shlex.quote(_conninfo(connection))}"


def _conninfo(connection: Mapping[str, Any]) -> str:
    return make_conninfo(
        host=connection.get("host"),
        port=connection.get("port"),
        dbname=connection.get("database"),
        user=connection.get("user"),
        sslmode=connection.get("sslmode"),
    )


@register.filter
def dsn(connection: Mapping[str, Any], password: str) -> str:
    """`postgresql://…` for clients that take one."""
    user = quote(str(connection["user"]), "")
    mode = quote(str(connection["sslmode"]), "")
    return f"postgresql://{user}:{quote(password, '')}@{_place(connection)}?sslmode={mode}"


@register.filter
def jdbc(connection: Mapping[str, Any]) -> str:
    """The URL for PostgreSQL's JDBC driver, without the password: its tools ask for one."""
    told = urlencode({"user": connection["user"], "sslmode": connection["sslmode"]})
    return f"jdbc:postgresql://{_place(connection)}?{told}"


def _place(connection: Mapping[str, Any]) -> str:
    """Host, port and database, as URLs write them."""
    host = str(connection["host"])
    bracketed = f"[{host}]" if ":" in host else host
    return f"{bracketed}:{connection['port']}/{quote(str(connection['database']), '')}"
