"""The way to the target through its API, for an operator who has no Postgres URL of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import SecretStr

from mirror.errors import ConfigError

A_PROJECT = "the https URL of the project and nothing more, such as https://abcdefgh.supabase.co"
A_KEY = "a secret key of the project (sb_secret_...) or its service_role key, not a publishable or anon key"
_PROJECT = re.compile(
    r"((?:https://(?:[\w.-]+|\[[0-9a-f:]+\])|http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([0-9]{1,5}))?)/?",
    re.ASCII | re.IGNORECASE,
)
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Https:
    url: str
    key: SecretStr

    @classmethod
    def checked(cls, url: str, key: SecretStr) -> Https:
        """Only when it is used: others have these variables for something else. Of a URL nothing but scheme and host:
        people paste what the dashboard shows. The key goes with every request, so in the clear only within a machine;
        and it is printable, or the library that refuses to send it would quote it."""
        found = _PROJECT.fullmatch(url)
        if found is None or int(found[2] or "443") > 65535:
            raise ConfigError(f"SUPABASE_URL must be {A_PROJECT}")
        secret = key.get_secret_value()
        if not _PRINTABLE.fullmatch(secret) or secret.startswith("sb_publishable_"):
            raise ConfigError(f"SUPABASE_SECRET_KEY must be {A_KEY}")
        return cls(found[1], key)

    @property
    def proxied(self) -> bool:
        """The system's proxies may pass on TLS, which they cannot read. Without it (within a machine) they would read
        the key."""
        return self.url.lower().startswith("https:")
