"""Where everything is mounted."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from debugflow.metrics import metrics

urlpatterns = [
    path(
        "sign-in/",
        auth.LoginView.as_view(template_name="sign_in.html", redirect_authenticated_user=True),
        name="sign-in",
    ),
    path("sign-out/", auth.LogoutView.as_view(), name="sign-out"),
    path("admin/", admin.site.urls),
    path("api/v1/", include("approvals.api.urls")),
    path("metrics", metrics, name="metrics"),
    path("", include("audit.urls")),
    path("", include("approvals.urls")),
]
