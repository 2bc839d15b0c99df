"""Questions to a target that is reached through HTTPS, from commands that ask once and end: no event loop, nothing kept
open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from mirror.errors import Unreachable
from mirror.https import Https
from mirror.target import replies
from mirror.target.replies import Insecurities, Reply
from mirror.target.rest import is_unnoticed, key_headers, pauses, proxies_usable, translate

TIMEOUT_S = 10.0
NOTICED_WITHIN_S = 10.0  # a person waits


class Api:
    """One call after the other."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def status(self) -> dict[str, Any]:
        return replies.status(self.call("mirror_status", noticed_within_s=NOTICED_WITHIN_S))

    def insecurities(self) -> tuple[dict[str, Any], ...]:
        name = "mirror_insecurities"
        return replies.parse(Insecurities, name, self.call(name)).insecurities

    def attempt(self) -> None:
        """Does what the daemon writes work through this API? All of it is undone before the reply."""
        replies.parse(Reply, "mirror_try", self.call("mirror_try"))

    def call(self, function: str, schema: str = "public", noticed_within_s: float = 0.0) -> Any:
        """Its reply, or the error as the daemon would have it."""
        for pause_s in pauses(noticed_within_s):
            response = self._post(function, schema)
            if response.is_success:
                return _json(response, function)
            if pause_s is None or not is_unnoticed(response):
                break
            time.sleep(pause_s)
        raise translate(response)

    def _post(self, function: str, schema: str) -> httpx.Response:
        try:
            return self._client.post(f"/rest/v1/rpc/{function}", content="{}", headers={"Content-Profile": schema})
        except httpx.HTTPError as error:
            raise Unreachable("target", str(error) or type(error).__name__) from error


def _json(response: httpx.Response, function: str) -> Any:
    try:
        return response.json()
    except ValueError:
        raise replies.not_ours(function) from None


@contextmanager
def opened(https: Https) -> Iterator[Api]:
    headers = key_headers(https) | {"Content-Type": "application/json"}
    with proxies_usable():
        client = httpx.Client(base_url=https.url, headers=headers, timeout=TIMEOUT_S, trust_env=https.proxied)
    with client:
        yield Api(client)
