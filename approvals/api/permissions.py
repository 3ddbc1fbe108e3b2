"""Who may call at all. What they may then see is in `access`, what they may do in the verbs."""

from __future__ import annotations

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView


class SignedInUnlessSigningIn(IsAuthenticated):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.method == "POST" or super().has_permission(request, view)
