"""One of the cast at the public API: signed in by session, every answer held to what it must be."""

import re
from html import unescape
from typing import Any, Final

import httpx

from debugflow.embedded.story.cast import PASSWORD
from debugflow.embedded.story.checks import expect

TOLD: Final = re.compile(r'href="/inbox/\d+/">(.*?)</a>')
TIMEOUT = 20.0  # seconds for one answer; a loaded machine is slow, not broken


class Person:
    """Somebody with a browser's session. Every method raises StoryFailed for another answer."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        # Not the environment's proxies: the address is this machine's.
        self._client = httpx.Client(base_url=f"{url}/api/v1/", timeout=TIMEOUT, trust_env=False)

    def sign_in(self) -> None:
        told = self.post("session/", {"username": self.name, "password": PASSWORD})
        self._client.headers["X-CSRFToken"] = told["csrf_token"]

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str) -> Any:
        response = self._client.get(path, params=parameters)
        return self._answer(f"GET {path}", response, 200)

    def post(self, path: str, body: dict[str, Any] | None = None, *, status: int = 200) -> Any:
        response = self._client.post(path, json=body or {})
        return self._answer(f"POST {path}", response, status)

    def refused(self, path: str, body: dict[str, Any], *, status: int, code: str) -> str:
        """Post what must be refused with this status and reason code; returns why it was."""
        response = self._client.post(path, json=body)
        told = self._answer(f"POST {path}", response, status)
        expect(f"{self.name}: POST {path}: reason code", expected=code, got=told["code"])
        return f"{status} {code}"

    def inbox(self) -> list[str]:
        """What they were told, newest first, as their page shows it."""
        page = self._client.get(self._client.base_url.join("/inbox/"))
        expect(f"{self.name}: GET /inbox/", expected=200, got=page.status_code)
        return [unescape(text) for text in TOLD.findall(page.text)]

    def cannot_see(self, path: str) -> str:
        self._answer(f"GET {path}", self._client.get(path), 404)
        return "404, as if it did not exist"

    def _answer(self, what: str, response: httpx.Response, status: int) -> Any:
        got = response.status_code
        # A success that should have been none may hold a password.
        shown = f"{got} {response.text[:500]}" if response.is_error else got
        expect(f"{self.name}: {what}", expected=status, got=got if got == status else shown)
        return response.json() if response.content else None
