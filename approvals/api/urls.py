"""The addresses of the API, below /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from approvals.api import credentials, endpoints, inbox, views

app_name = "api"

urlpatterns = [
    path("session/", credentials.SignIn.as_view(), name="session"),
    path("targets/", views.Targets.as_view(), name="targets"),
    path("targets/<int:pk>/", views.OneTarget.as_view(), name="target"),
    path("levels/", views.Levels.as_view(), name="levels"),
    path("levels/<int:pk>/", views.OneLevel.as_view(), name="level"),
    path("requests/", views.Requests.as_view(), name="requests"),
    path("requests/preview/", views.PreviewRequest.as_view(), name="preview"),
    path("requests/emergency/", views.Emergency.as_view(), name="emergency"),
    path("requests/<int:pk>/", views.OneRequest.as_view(), name="request"),
    path("requests/<int:pk>/vote/", views.VoteOnRequest.as_view(), name="vote"),
    path("requests/<int:pk>/send-back/", views.SendRequestBack.as_view(), name="send-back"),
    path("requests/<int:pk>/edit/", views.EditRequest.as_view(), name="edit"),
    path("requests/<int:pk>/cancel/", views.CancelRequest.as_view(), name="cancel"),
    path("requests/<int:pk>/redraw/", views.RedrawRequest.as_view(), name="redraw"),
    path("requests/<int:pk>/comments/", views.Comments.as_view(), name="comments"),
    path("requests/<int:pk>/events/", views.RequestEvents.as_view(), name="request-events"),
    path("grants/", views.Grants.as_view(), name="grants"),
    path("grants/<int:pk>/", views.OneGrant.as_view(), name="grant"),
    path("grants/<int:pk>/reveal/", views.RevealGrant.as_view(), name="reveal"),
    path("grants/<int:pk>/extend/", views.ExtendGrant.as_view(), name="extend"),
    path("grants/<int:pk>/release/", views.ReleaseGrant.as_view(), name="release"),
    path("grants/<int:pk>/revoke/", views.RevokeGrant.as_view(), name="revoke"),
    path("grants/<int:pk>/try-again/", views.TryGrantAgain.as_view(), name="try-again"),
    path("grants/<int:pk>/abandon/", views.AbandonGrant.as_view(), name="abandon"),
    path("reviews/", views.Reviews.as_view(), name="reviews"),
    path("reviews/<int:pk>/", views.OneReview.as_view(), name="review"),
    path("delegations/", views.Delegations.as_view(), name="delegations"),
    path("delegations/<int:pk>/", views.OneDelegation.as_view(), name="delegation"),
    path("delegations/<int:pk>/end/", views.EndDelegation.as_view(), name="delegation-end"),
    path("proposals/", views.Proposals.as_view(), name="proposals"),
    path("proposals/<int:pk>/", views.OneProposal.as_view(), name="proposal"),
    path("events/", views.Events.as_view(), name="events"),
    path("inbox/", inbox.Inbox.as_view(), name="inbox"),
    path("inbox/read/", inbox.ReadInbox.as_view(), name="inbox-read"),
    path("tokens/", credentials.Tokens.as_view(), name="tokens"),
    path("tokens/this/", credentials.ThisToken.as_view(), name="this-token"),
    path("tokens/<int:pk>/", credentials.OneToken.as_view(), name="token"),
    path("schema/", views.Schema.as_view(), name="schema"),
    re_path(r"", endpoints.Unknown.as_view(), name="unknown"),
]
