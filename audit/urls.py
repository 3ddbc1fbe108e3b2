"""The addresses of the audit log's pages."""

from __future__ import annotations

from django.urls import path

from audit import views

urlpatterns = [path("audit/", views.search, name="audit")]
