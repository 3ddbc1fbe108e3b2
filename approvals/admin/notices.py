"""What people were told, and what became of each message: looked at, and sent once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from approvals import access
from approvals.admin.base import RecordAdmin
from approvals.errors import DebugflowError
from approvals.models import Delivery, Notice
from approvals.notify import resending
from approvals.states import DeliveryStanding

if TYPE_CHECKING:
    from approvals.people import Person

STANDINGS: Final = {
    DeliveryStanding.WAITING: Q(next_try_at__isnull=False, last_error=""),
    DeliveryStanding.RETRYING: Q(next_try_at__isnull=False) & ~Q(last_error=""),
    DeliveryStanding.SENT: Q(sent_at__isnull=False),
    DeliveryStanding.WITHDRAWN: Q(withdrawn_at__isnull=False),
    DeliveryStanding.DEAD: Q(dead_at__isnull=False),
}


class StandingFilter(admin.SimpleListFilter):
    """By what became of it, which is in no column of its own."""

    title = "standing"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(one), str(one.label)) for one in STANDINGS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:
        wanted = STANDINGS.get(cast("DeliveryStanding", self.value()))
        return queryset.filter(wanted) if wanted is not None else queryset


@admin.register(Notice)
class NoticeAdmin(RecordAdmin):
    list_display = ["__str__", "fact", "thread", "at", "told_at", "last_error"]
    list_filter = ["fact", "urgent", "at"]
    search_fields = ["=thread", "text", "last_error"]
    search_help_text = "A thread such as request:12, or part of what was said."


@admin.register(Delivery)
class DeliveryAdmin(RecordAdmin):
    list_display = ["__str__", "fact", "standing", "attempts", "last_error", "since", "sent_at"]
    list_filter = [StandingFilter, "channel", "notice__fact", "since"]
    list_select_related = ["notice", "person", "endpoint"]
    search_fields = ["=notice__thread", "=person__username", "=endpoint__name", "last_error"]
    search_help_text = "A thread such as request:12, a person, a webhook, or part of an error."
    change_form_template = "admin/approvals/delivery/change_form.html"

    @admin.display(description="Fact", ordering="notice__fact")
    def fact(self, row: Delivery) -> str:
        return row.notice.fact

    @admin.display(description="Standing")
    def standing(self, row: Delivery) -> str:
        return str(row.standing.label)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["standing", *super().get_fields(request, obj)]

    def get_urls(self) -> list[URLPattern]:
        resend = self.admin_site.admin_view(self.resend_view)
        return [
            path("<path:object_id>/resend/", resend, name="approvals_delivery_resend"),
            *super().get_urls(),
        ]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Django's own, with a button for what failed or is to go out once more."""
        row, person = self.get_object(request, object_id), cast("Person", request.user)
        may = row is not None and resending.is_over(row) and access.administers(person)
        more = {"may_resend": may, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, more)

    def resend_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Only a POST sends anything."""
        row = self.get_object(request, object_id)
        if row is None or not self.has_view_permission(request, row):
            raise PermissionDenied
        if request.method == "POST":
            try:
                resending.resend(row.pk, by=cast("Person", request.user))
            except DebugflowError as refusal:
                messages.error(request, refusal.message)
            else:
                self.message_user(request, "It is being sent again.")
        return HttpResponseRedirect(reverse("admin:approvals_delivery_change", args=[row.pk]))
