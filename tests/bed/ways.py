"""The two ways to the target, each through a proxy that can spoil it: what is promised holds on both."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType

import mirror.target.direct
import mirror.target.rest
from mirror.config import load_settings
from mirror.target.target import Transport
from mirror.target.ways import open_transport
from tests.bed.daemons import target_environ
from tests.bed.proxy import Proxy
from tests.bed.supabase_api import api

WAYS = ("direct", "https")


@dataclass(frozen=True)
class Way:
    """`url`: through the proxy, for daemons.environ(); `module`: where the time-outs of this way are."""

    name: str
    url: str
    proxy: Proxy
    module: ModuleType

    async def open(self) -> Transport:
        return await open_transport(load_settings(target_environ(self.url)))


@contextlib.asynccontextmanager
async def open_way(name: str, target_url: str) -> AsyncIterator[Way]:
    async with contextlib.AsyncExitStack() as stack:
        url = target_url
        module: ModuleType = mirror.target.direct
        if name == "https":
            url, module = (await stack.enter_async_context(api(target_url))).url, mirror.target.rest
        proxy = await stack.enter_async_context(Proxy.to(url))
        yield Way(name, proxy.url(url), proxy, module)
