"""Slack: the workspace that people are told in, what to enter there, and whose accounts are whose.

The token and the secret are typed in and never shown. What works is asked of Slack itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from approvals.admin.base import VerbAdmin, VerbForm
from approvals.errors import Proposed
from approvals.models import SlackAccount, SlackWorkspace
from approvals.notify.slack import accounts, workspace

if TYPE_CHECKING:
    from approvals.people import Person

GREETING = "This is debugflow. You asked whether messages arrive, and this one does."
NOT_KEPT = (
    "What you typed is not kept. Once somebody else has agreed you have an hour to enter it again."
)
HIDDEN = {"autocomplete": "off", "spellcheck": "false"}


class WorkspaceForm(VerbForm):
    bot_token = forms.CharField(
        label="Bot token",
        required=False,
        max_length=300,
        widget=forms.PasswordInput(attrs=HIDDEN),
        help_text="xoxb-…, from OAuth & Permissions. Empty keeps the one there is.",
    )
    signing_secret = forms.CharField(
        label="Signing secret",
        required=False,
        max_length=100,
        widget=forms.PasswordInput(attrs=HIDDEN),
        help_text="From Basic Information. Empty keeps the one there is.",
    )

    def wish(self) -> workspace.Wish:
        """What was typed, once the form is valid."""
        given = self.cleaned_data
        return workspace.Wish(
            bot_token=given["bot_token"].strip(),
            signing_secret=given["signing_secret"].strip(),
            enabled=given["enabled"],
        )


@admin.register(SlackWorkspace)
class SlackWorkspaceAdmin(VerbAdmin):
    list_display = ["name", "team_id", "enabled", "last_error"]
    search_fields = ["name"]
    fields = ["bot_token", "signing_secret", "enabled"]
    change_form_template = "admin/approvals/slackworkspace/change_form.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and not SlackWorkspace.objects.exists()

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = self.form_with(request, WorkspaceForm)
        return super().get_form(request, obj, change, **kwargs)

    def apply(self, obj: SlackWorkspace, form: WorkspaceForm, *, by: Any) -> None:
        wish = form.wish()
        saved = workspace.save(
            workspace.ONE, by=by, wish=wish, identity=workspace.identify(wish, by=by)
        )
        obj.pk, obj.name = saved.pk, saved.name

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        try:
            super().save_model(request, obj, form, change)
        except Proposed:
            messages.info(request, NOT_KEPT)
            raise

    def delete_model(self, request: Any, obj: Any) -> None:
        workspace.delete(obj.pk, by=request.user)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        site = settings.SITE_URL or request.build_absolute_uri("/").rstrip("/")
        only = {"show_save_and_add_another": False}
        two = workspace.takes_two(cast("Person", request.user))
        more = {"manifest": manifest(site), "takes_two": two, **only, **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, more)

    def get_urls(self) -> list[URLPattern]:
        test = self.admin_site.admin_view(self.test_view)
        return [
            path("<path:object_id>/test/", test, name="approvals_slackworkspace_test"),
            *super().get_urls(),
        ]

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Only a POST calls Slack."""
        row = self.require_change(request, object_id)
        if request.method == "POST":
            for works, words in workspace.examine(row, cast("Person", request.user), GREETING):
                messages.add_message(request, messages.SUCCESS if works else messages.ERROR, words)
        return self.to_change_page(row)


@admin.register(SlackAccount)
class SlackAccountAdmin(VerbAdmin):
    """Only looked at, and disconnected: nobody connects another's."""

    list_display = ["person", "member_id", "team_id", "connected_at"]
    list_select_related = ["person"]
    search_fields = ["=person__username", "=member_id"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: Any, obj: Any) -> None:
        accounts.end(obj.person_id, by=request.user)

    def to_change_page(self, obj: Any) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:approvals_slackaccount_changelist"))


def manifest(site: str) -> str:
    """What Slack makes the app from: it asks for no more than it uses."""
    return json.dumps(
        {
            "display_information": {
                "name": "debugflow",
                "description": "Asks for access to production, and for decisions about it",
            },
            "features": {
                "app_home": {"messages_tab_enabled": True, "messages_tab_read_only_enabled": True},
                "bot_user": {"display_name": "debugflow", "always_online": True},
            },
            "oauth_config": {"scopes": {"bot": ["chat:write", "im:write"]}},
            "settings": {
                "interactivity": {"is_enabled": True, "request_url": f"{site}{reverse('slack')}"},
                "org_deploy_enabled": False,
                "socket_mode_enabled": False,
                "token_rotation_enabled": False,
            },
        },
        indent=2,
    )
