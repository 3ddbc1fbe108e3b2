"""Where everything is mounted."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.generic import TemplateView

from debugflow.accounts import own
from debugflow.accounts import views as accounts
from debugflow.metrics import metrics

urlpatterns = [
    path("sign-in/", accounts.SignIn.as_view(), name="sign-in"),
    path("sign-out/", auth.LogoutView.as_view(), name="sign-out"),
    path("password/", accounts.Password.as_view(), name="password"),
    path("settings/", own.show, name="settings"),
    path("settings/time-zone/", own.set_time_zone, name="settings-time-zone"),
    path("settings/notifications/", own.set_notifications, name="settings-notifications"),
    path("settings/slack/", own.send_slack_code, name="settings-slack"),
    path("settings/slack/code/", own.prove_slack, name="settings-slack-code"),
    path("settings/slack/end/", own.end_slack, name="settings-slack-end"),
    path("settings/tokens/", own.make_token, name="settings-tokens"),
    path("settings/tokens/<int:pk>/revoke/", own.revoke_token, name="settings-token-revoke"),
    path("settings/delegations/", own.lend, name="settings-delegations"),
    path("settings/delegations/<int:pk>/end/", own.end_lending, name="settings-delegation-end"),
    path(".well-known/change-password", accounts.change_password, name="change-password"),
    # Before the admin's own, which would sign people in and change passwords without our Events.
    path("admin/login/", accounts.admin_sign_in),
    path("admin/password_change/", accounts.change_password),
    path("admin/", admin.site.urls),
    # Before the API, which answers every other address below its own.
    path("api/v1/docs/", TemplateView.as_view(template_name="api.html"), name="api-docs"),
    path("api/v1/", include("approvals.api.urls")),
    path("metrics", metrics, name="metrics"),
    path("", include("audit.urls")),
    path("", include("approvals.urls")),
]
