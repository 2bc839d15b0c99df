"""The system's HTTP proxies and the key of the HTTPS way: they pass TLS on, and without TLS they see nothing at all."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from mirror.cli import main
from mirror.errors import ConfigError, MirrorError, Unreachable
from mirror.https import Https
from mirror.target.once import opened
from mirror.target.rest import Rest
from tests.bed.daemons import environ, install, leading, running
from tests.bed.impostor import Impostor, NosyProxy, certificate, impostor
from tests.bed.supabase_api import SECRET_KEY, api

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
COMMANDS = (["status"], ["verify"], ["why", "ana", "rome"], ["doctor"], ["adopt"])


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("MIRROR_", "SUPABASE_")) or "PROXY" in name.upper()]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Impostor]:
    """The system's, for everything and in every spelling."""
    with impostor(certificate(tmp_path, "abcdefgh.supabase.co"), kind=NosyProxy) as there:
        for name in NAMES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{there.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{there.port}")
        yield there


async def test_no_proxy_is_asked_for_what_is_on_this_machine(
    proxy: Impostor, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    async with api(target_url) as supabase:
        async with running(source_url, supabase.url) as daemon:
            await leading(daemon)
        for name, value in environ(source_url, supabase.url).items():
            monkeypatch.setenv(name, value)
        asked = len(supabase.calls)
        for command in COMMANDS:
            await asyncio.to_thread(main, command)
            assert len(supabase.calls) > asked, command
            asked = len(supabase.calls)
    assert not proxy.asked


async def calls(https: Https) -> list[MirrorError]:
    """Both clients that there are."""
    failed = []
    transport = Rest(https)
    try:
        await transport.call("mirror_status", None)
    except MirrorError as error:
        failed.append(error)
    finally:
        await transport.close()
    try:
        with opened(https) as once:
            await asyncio.to_thread(once.call, "mirror_status")
    except MirrorError as error:
        failed.append(error)
    return failed


@pytest.mark.parametrize("url", ["http://localhost:1", "HTTP://LOCALHOST:1", "http://127.0.0.1:1", "http://[::1]:1"])
async def test_whatever_this_machine_is_called(proxy: Impostor, url: str) -> None:
    failed = await calls(Https.checked(url, SecretStr(SECRET_KEY)))
    assert [type(error) for error in failed] == [Unreachable, Unreachable]
    assert not proxy.asked


async def test_a_proxy_may_pass_tls_on_and_cannot_read_it(proxy: Impostor) -> None:
    failed = await calls(Https.checked("https://abcdefgh.supabase.co", SecretStr(SECRET_KEY)))
    assert proxy.asked == 2
    assert proxy.heard.startswith(b"CONNECT abcdefgh.supabase.co:443 ")
    assert SECRET_KEY.encode() not in proxy.heard
    assert all("certificate verify failed" in str(error) for error in failed)


@pytest.mark.parametrize(
    "proxy_url", ["socks5://127.0.0.1:1", "ftp://user:hunter2@127.0.0.1:1", "http://127.0.0.1:port"]
)
async def test_a_proxy_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch, proxy_url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy_url)
    https = Https.checked("https://abcdefgh.supabase.co", SecretStr(SECRET_KEY))
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY or ALL_PROXY.*NO_PROXY") as refused:
        Rest(https)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match="HTTPS_PROXY or ALL_PROXY"), opened(https):
        pass


async def test_a_proxy_that_refuses_has_passed_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that is no unknown outcome."""
    with impostor(None, kind=NosyProxy) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        failed = await calls(Https.checked("https://abcdefgh.supabase.co", SecretStr(SECRET_KEY)))
    assert [type(error) for error in failed] == [Unreachable, Unreachable]
