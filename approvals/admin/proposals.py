"""Changes that wait for a second person: what each would do, and the buttons of whoever may agree.

They are decided here, in person, and nowhere else; `proposals` has the verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.text import Truncator

from approvals import proposals
from approvals.admin.base import RecordAdmin
from approvals.errors import DebugflowError
from approvals.models import Proposal
from approvals.states import ProposalState
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person

NAMES_SHOWN = 20
EFFECTS_SHOWN = 100  # characters
DIGITS = 19  # of numbers that are too great for an id


@admin.register(Proposal)
class ProposalAdmin(RecordAdmin):
    """What waits comes first."""

    list_display = ["summary", "widens", "state", "proposer", "proposed_at", "decided_by"]
    list_filter = ["state", "change", "proposed_at"]
    list_select_related = ["proposer", "decided_by"]
    search_fields = ["=id", "summary", "=proposer__username", "=decided_by__username", "note"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Proposal]:
        return proposals.visible_to(_person(request))

    def get_ordering(self, request: HttpRequest) -> Any:
        waits = Case(When(state=ProposalState.PROPOSED, then=Value(0)), default=Value(1))
        return [waits.asc(), "-id"]

    @admin.display(description="Widens")
    def widens(self, proposal: Proposal) -> str:
        return Truncator(" ".join(proposal.effects)).chars(EFFECTS_SHOWN)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Proposal | None:
        """Also one that this person may not see, who is then refused and not told there is none."""
        known = object_id.isascii() and object_id.isdecimal() and len(object_id) < DIGITS
        found = Proposal.objects.select_related("proposer", "decided_by")
        return found.filter(pk=object_id).first() if known else None

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may make such changes themselves may look at those of others."""
        person = _person(request)
        if not person.is_active or not person.is_staff:
            return False
        if obj is not None:
            return proposals.visible_to(person).filter(pk=obj.pk).exists()
        may = any(proposals.may_do(name, person) for name in proposals.registered())
        return may or person.has_perm("approvals.view_proposal")

    def get_urls(self) -> list[URLPattern]:
        views = {"agree": self.agree_view, "deny": self.deny_view, "withdraw": self.back_view}
        own = [
            path(
                f"<int:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"approvals_proposal_{name}",
            )
            for name, view in views.items()
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of one, for looking; its buttons lead to the views below."""
        found = self._seen(request, object_id)
        if found is None:
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        return self._page(request, found)

    def _seen(self, request: HttpRequest, object_id: str) -> Proposal | None:
        found = self.get_object(request, object_id)
        if found is not None and not self.has_view_permission(request, found):
            raise PermissionDenied
        return found

    def _page(self, request: HttpRequest, found: Proposal, **more: Any) -> HttpResponse:
        person, now = _person(request), clock.now()
        refusal = proposals.refusal(found, person, now)
        waits = found.state == ProposalState.PROPOSED and now < found.expires_at
        able = [str(one) for one in proposals.can_agree(found, now)] if waits else []
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": found,
            "proposal": found,
            "title": found.summary,
            "now": now,
            "waits": waits,
            "able": able[:NAMES_SHOWN],
            "more": max(0, len(able) - NAMES_SHOWN),
            "gain": proposals.names(found.beneficiaries[:NAMES_SHOWN]),
            "gain_more": max(0, len(found.beneficiaries) - NAMES_SHOWN),
            "refusal": refusal,
            "own": found.proposer_id == person.pk,
            "leave": proposals.is_leave(found, person, now),
            **more,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/approvals/proposal.html", context)

    def agree_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        digest = request.POST.get("digest", "")
        done = "Done: it is as if you had both made the change."
        return self._decide(request, object_id, proposals.agree, done, digest=digest)

    def deny_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        words = {name: request.POST.get(name, "") for name in ("digest", "note")}
        done = "Denied; whoever proposed it is told why."
        return self._decide(request, object_id, proposals.deny, done, **words)

    def back_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return self._decide(request, object_id, proposals.withdraw, "Withdrawn.")

    def _decide(
        self,
        request: HttpRequest,
        object_id: int,
        verb: Callable[..., Proposal],
        done: str,
        **words: str,
    ) -> HttpResponse:
        """Only a POST does anything. What is refused is told on the page, with its status."""
        found = self._seen(request, str(object_id))
        if request.method == "POST" and found is not None:
            try:
                verb(found.pk, by=request.user, **words)
            except DebugflowError as refusal:
                messages.error(request, proposals.told(refusal))
                found.refresh_from_db()
                page = self._page(request, found, note=words.get("note", ""))
                page.status_code = refusal.status
                return page
            self.message_user(request, done)
        return HttpResponseRedirect(reverse("admin:approvals_proposal_change", args=[object_id]))


def _person(request: HttpRequest) -> Person:
    return cast("Person", request.user)
