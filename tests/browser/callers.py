"""The cast at the API, where tests set the scene faster than with a mouse; not a test."""

from __future__ import annotations

from typing import Any

from debugflow.embedded.story import access, people

HOUR = 3600


class Caller(people.Person):
    """Somebody with a session that a browser of theirs may go on with."""

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    def ask(self, reason: str, *, level: str = "read-only") -> dict[str, Any]:
        """The request for an hour, as the API tells it."""
        levels = {one["name"]: one for one in self.get("levels/")["results"]}
        return access.ask(self, levels[level], duration=HOUR, reason=reason)

    def clear(self) -> None:
        """Take back whatever was asked for or opened for this person, as far as it is not over."""
        for kind, whose, verb, states in (
            ("requests", "requester", "cancel", ("pending",)),
            ("grants", "beneficiary", "release", ("scheduled", "provisioning", "active")),
        ):
            for state in states:
                for one in self.get(f"{kind}/", state=state)["results"]:
                    if one[whose]["username"] == self.name:
                        self.post(f"{kind}/{one['id']}/{verb}/")


class Callers(dict[str, Caller]):
    """Everybody who was needed so far, signed in once for all tests of an installation."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __missing__(self, name: str) -> Caller:
        self[name] = Caller(name, self.url)
        self[name].sign_in()
        return self[name]

    def open_access(self, reason: str) -> dict[str, Any]:
        """alice's, approved by bob and carol, and usable: the grant as the API tells it."""
        request = self["alice"].ask(reason)
        for name in ("bob", "carol"):
            request = access.approve(self[name], request)
        return access.wait_until_active(self["alice"], request["grant"])

    def close(self) -> None:
        for caller in self.values():
            caller.close()
