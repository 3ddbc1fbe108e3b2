"""What Slack calls when somebody presses a button there: the same verbs, as that human.

Whether a call is Slack's own is in `notify.slack.signing`, whose account it is in
`notify.slack.accounts`. Slack wants its answer within 3 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import structlog
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from pydantic import BaseModel, ValidationError

from approvals import access, tokens, workflow
from approvals.errors import DebugflowError, Invalid, WrongState
from approvals.models import Decision, Delivery, SlackWorkspace
from approvals.notify import sending
from approvals.notify.slack import accounts, channel, messages, signing, workspace
from approvals.notify.slack.client import Slack, SlackRefused
from approvals.notify.slack.messages import APPROVE, DENY, REASON, Choice
from approvals.secrets import SecretUnreadable
from approvals.sentences import headline
from approvals.wishes import REASON_MAX
from audit import context

if TYPE_CHECKING:
    from approvals.people import Person

BODY_MAX: Final = 256 * 1024  # bytes; a call holds the whole message that was clicked
WITHIN: Final = 1.2  # seconds that Slack may keep us waiting, which may be twice, for our answer

logger = structlog.get_logger(__name__)


class _Id(BaseModel):
    id: str


class _Action(BaseModel):
    action_id: str
    value: str = ""


class _Container(BaseModel):
    channel_id: str = ""
    message_ts: str = ""


class _Typed(BaseModel):
    value: str | None = None


class _State(BaseModel):
    values: dict[str, dict[str, _Typed]] = {}


class _View(BaseModel):
    callback_id: str = ""
    private_metadata: str = ""
    state: _State = _State()


class _Call(BaseModel):
    """What is read of an interaction, of whichever type."""

    type: str
    team: _Id
    user: _Id
    trigger_id: str = ""
    container: _Container = _Container()
    actions: list[_Action] = []
    view: _View = _View()

    @property
    def button(self) -> str:
        return self.actions[0].action_id if self.type == "block_actions" and self.actions else ""


class _Asked(BaseModel):
    """What a modal keeps meanwhile: what is decided, and in which message it was asked."""

    packed: str = ""
    message: _Container = _Container()


@csrf_exempt
@login_not_required
@never_cache
@require_POST
def interact(request: HttpRequest) -> HttpResponse:
    """401 for what Slack has not signed just now, 400 for what is no interaction; else 200.

    The same bytes a second time do nothing.
    """
    if len(request.body) > BODY_MAX:
        return HttpResponse(status=413)
    stamp = request.headers.get("X-Slack-Request-Timestamp", "")
    signature = request.headers.get("X-Slack-Signature", "")
    if (row := signing.signed(stamp, signature, request.body)) is None:
        return HttpResponse(status=401)
    if (call := _read(request.body)) is None:
        return HttpResponse(status=400)
    if not signing.first_time(signature):
        return HttpResponse()
    here = context.current()
    agent = f"Slack, {call.user.id} in {call.team.id}"[:200]
    with context.bind(request_id=here.request_id, address=here.address, agent=agent):
        return _answer(row, call)


def _read(body: bytes) -> _Call | None:
    try:
        [payload] = parse_qs(body.decode(), max_num_fields=9)["payload"]
        return _Call.model_validate_json(payload)
    except (ValueError, KeyError, ValidationError):
        return None


def _answer(row: SlackWorkspace, call: _Call) -> HttpResponse:
    if call.type == "view_submission" and call.view.callback_id == DENY:
        return _denied(row, call)
    if call.button in (APPROVE, DENY):
        try:
            _approve(row, call) if call.button == APPROVE else _ask_why(row, call)
        except DebugflowError as refusal:
            _whisper(row, call, refusal)
            _show(row, call, call.container)
    return HttpResponse()


def _approve(row: SlackWorkspace, call: _Call) -> None:
    person, choice = _clicked(row, call, APPROVE, call.actions[0].value)
    _vote(choice, by=person, decision=Decision.APPROVE)
    _show(row, call, call.container)


def _ask_why(row: SlackWorkspace, call: _Call) -> None:
    person, choice = _clicked(row, call, DENY, call.actions[0].value)
    visible = access.visible_requests(person).select_related(
        "requester", "beneficiary", "level", "target"
    )
    if (asked := visible.filter(pk=choice.request).first()) is None:
        raise WrongState("This request does not exist.", code="gone")
    kept = _Asked(packed=call.actions[0].value, message=call.container).model_dump_json()
    view = messages.denial(headline(asked), kept, REASON_MAX)
    _said(row, lambda slack: slack.ask(call.trigger_id, view))


def _denied(row: SlackWorkspace, call: _Call) -> HttpResponse:
    """The modal closes, or says at its field why it does not."""
    typed = call.view.state.values.get(REASON, {}).get(REASON, _Typed()).value or ""
    kept = _kept(call.view.private_metadata)
    try:
        person, choice = _clicked(row, call, DENY, kept.packed)
        _vote(choice, by=person, decision=Decision.DENY, comment=typed)
    except DebugflowError as refusal:
        errors = {REASON: _words(refusal)}
        return JsonResponse({"response_action": "errors", "errors": errors})
    _show(row, call, kept.message)
    return HttpResponse()


def _kept(text: str) -> _Asked:
    try:
        return _Asked.model_validate_json(text)
    except ValidationError:
        return _Asked()  # which nobody may decide on


def _clicked(row: SlackWorkspace, call: _Call, did: str, packed: str) -> tuple[Person, Choice]:
    whose = {"team_id": call.team.id, "member_id": call.user.id}
    return accounts.acting(row.pk, **whose, did=did, packed=packed)


def _vote(choice: Choice, *, by: Person, decision: Decision, comment: str = "") -> None:
    # Named even if it is their own, so that no vote counts as one that the message did not tell of.
    whose = get_user_model()._default_manager.get(pk=choice.whose)
    workflow.vote(
        choice.request,
        by=by,
        decision=decision,
        scope_hash=choice.scope_hash,
        stage_id=choice.stage,
        replaces=choice.replaces,
        comment=comment,
        on_behalf_of=whose.get_username(),
        seen_outcome=choice.outcome,
        risks=tokens.VOTE_RISKS,
    )


def _words(refusal: DebugflowError) -> str:
    fields = refusal.fields if isinstance(refusal, Invalid) else {}
    return " ".join(line for lines in fields.values() for line in lines) or refusal.message


def _whisper(row: SlackWorkspace, call: _Call, refusal: DebugflowError) -> None:
    """To whoever clicked, and to nobody else."""
    told = messages.note(f"This did not count. {_words(refusal)}")
    where, member = call.container.channel_id, call.user.id
    _said(row, lambda slack: slack.whisper(where, member, told))


def _show(row: SlackWorkspace, call: _Call, where: _Container) -> None:
    """Have the message that was clicked say at once what is true now.

    If that fails after a vote the outbox does it in a moment.
    """
    sent = Delivery.objects.filter(
        person__slack_account__team_id=row.team_id,
        person__slack_account__member_id=call.user.id,
        channel=workspace.CHANNEL,
        handle=f"{where.channel_id}:{where.message_ts}",
    )
    delivery = sent.select_related("notice", "person").first()
    if delivery is not None:
        _said(row, lambda slack: channel.changed(sending.parcel([delivery]), slack))


def _said(row: SlackWorkspace, say: Callable[[Slack], object]) -> None:
    """Tell Slack something. What was decided stands, whether or not it hears of it."""
    try:
        say(workspace.connect(row, within=WITHIN))
    except (SlackRefused, LookupError, SecretUnreadable) as error:
        logger.warning("Slack was not told what became of a click", why=str(error))
