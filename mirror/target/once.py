"""Questions to a target that is reached through HTTPS, from commands that ask once and end: no event loop, nothing kept
open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from mirror.config import Https
from mirror.errors import Unreachable
from mirror.target.rest import proxies_usable, translate

TIMEOUT_S = 10.0


class Api:
    """One call after the other; a key that is no JWT goes into one header only."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, function: str, schema: str = "public") -> Any:
        """Its reply, or the error as the daemon would have it."""
        try:
            response = self._client.post(f"/rest/v1/rpc/{function}", content="{}", headers={"Content-Profile": schema})
        except httpx.HTTPError as error:
            raise Unreachable("target", str(error) or type(error).__name__) from error
        if not response.is_success:
            raise translate(response)
        return response.json()


@contextmanager
def opened(https: Https) -> Iterator[Api]:
    key = https.key.get_secret_value()
    headers = {"apikey": key, "Content-Type": "application/json"}
    if key.count(".") == 2:
        headers["Authorization"] = f"Bearer {key}"
    with proxies_usable():
        client = httpx.Client(base_url=https.url, headers=headers, timeout=TIMEOUT_S, trust_env=https.proxied)
    with client:
        yield Api(client)
