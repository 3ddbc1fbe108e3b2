"""The addresses of the pages. A POST goes to an address of its own verb."""

from __future__ import annotations

from django.urls import path

from approvals.views import (
    ask,
    editing,
    emergency,
    grants,
    home,
    inbox,
    queue,
    queue_bulk,
    requests,
    reviews,
    slack,
)

urlpatterns = [
    path("", home.home, name="home"),
    path("ask/", ask.choose, name="ask"),
    path("ask/<int:pk>/", ask.ask, name="ask-level"),
    path("ask/<int:pk>/preview/", ask.preview, name="ask-preview"),
    path("ask/<int:pk>/emergency/", emergency.emergency, name="emergency"),
    path("requests/<int:pk>/", requests.show, name="request"),
    path("requests/<int:pk>/lower/", requests.lower, name="request-lower"),
    path("requests/<int:pk>/vote/", requests.vote, name="request-vote"),
    path("requests/<int:pk>/send-back/", editing.send_back, name="request-send-back"),
    path("requests/<int:pk>/edit/", editing.edit, name="request-edit"),
    path("requests/<int:pk>/comment/", requests.comment, name="request-comment"),
    path("requests/<int:pk>/cancel/", requests.cancel, name="request-cancel"),
    path("requests/<int:pk>/redraw/", requests.redraw, name="request-redraw"),
    path("queue/", queue.queue, name="queue"),
    path("queue/decide/", queue_bulk.decide, name="queue-decide"),
    path("reviews/", reviews.index, name="reviews"),
    path("reviews/<int:pk>/", reviews.one, name="review"),
    path("inbox/", inbox.index, name="inbox"),
    path("inbox/read/", inbox.read, name="inbox-read"),
    path("inbox/<int:pk>/", inbox.show, name="inbox-entry"),
    path("inbox/from/<str:signed>/", inbox.from_message, name="inbox-message"),
    path("integrations/slack/", slack.interact, name="slack"),
    path("grants/", grants.index, name="grants"),
    path("grants/<int:pk>/", grants.show, name="grant"),
    path("grants/<int:pk>/reveal/", grants.reveal, name="grant-reveal"),
    path("grants/<int:pk>/extend/", grants.extend, name="grant-extend"),
    path("grants/<int:pk>/release/", grants.release, name="grant-release"),
    path("grants/<int:pk>/revoke/", grants.revoke, name="grant-revoke"),
    path("grants/<int:pk>/try-again/", grants.try_again, name="grant-try-again"),
    path("grants/<int:pk>/abandon/", grants.abandon, name="grant-abandon"),
]
