"""What a URL alone tells: a pooler, a scale-to-zero compute, a host that only speaks IPv6."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from mirror.config import Settings
from mirror.doctor.finding import Finding, Side
from mirror.errors import ConfigError
from mirror.postgres import parameters
from mirror.tls import PERMISSION, weaknesses
from mirror.translation import SETTING

NEON = ".neon.tech"
NEON_SLEEPS_AFTER_S = 300.0  # idle for so long, a compute that scales to zero sleeps
HOURS_A_MONTH = 730
_SESSION_POOLER = (
    "Use the session pooler (Supabase: Connect, Session pooler, port 5432), or SUPABASE_URL and a secret key."
)


def host(url: str, side: Side) -> str:
    """The first of them; empty for a socket."""
    try:
        name = str(parameters(url, side).get("host", "")).split(",")[0]
    except ConfigError:
        return ""
    return "" if name.startswith("/") else name


def neon(url: str, settings: Settings) -> Iterator[Finding]:
    if not host(url, "source").endswith(NEON):
        return
    beat_s = min(settings.heartbeat_interval_s, settings.poll_interval_s)
    if beat_s < NEON_SLEEPS_AFTER_S:
        yield Finding(
            "source",
            "scale to zero",
            "ok",
            f"asking every {beat_s:g} s keeps this Neon compute awake: about {HOURS_A_MONTH} compute hours a month",
            "If it must sleep: MIRROR_POLL_INTERVAL and MIRROR_HEARTBEAT_INTERVAL above 5m; changes may be as late.",
        )
        return
    yield Finding(
        "source",
        "scale to zero",
        "warning",
        f"asking only every {beat_s:g} s lets this Neon compute sleep and cut the doorbell: changes may be as late",
        "If seconds matter, leave MIRROR_POLL_INTERVAL and MIRROR_HEARTBEAT_INTERVAL at their defaults.",
    )


def unverified(url: str, side: Side) -> Iterator[Finding]:
    for option, value in weaknesses(url).items():
        yield Finding(
            side,
            "tls",
            "warning",
            f"{SETTING[side]} says {option}={value}, so another server can take the password",
            f"Take {option} out of it, and {PERMISSION} out of the environment.",
        )


def families(name: str) -> set[socket.AddressFamily]:
    """Empty when it has no address at all."""
    try:
        found = socket.getaddrinfo(name, 5432, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {family for family, *_ in found}


def ipv6_only(url: str) -> Iterator[Finding]:
    name = host(url, "target")
    if name and families(name) == {socket.AF_INET6}:
        yield Finding(
            "target",
            "ipv6",
            "warning",
            f"{name} has an IPv6 address only: from a network without IPv6 it cannot be reached",
            _SESSION_POOLER,
        )


def cure(url: str, side: Side) -> str:
    """Of a side that did not answer."""
    name = host(url, side)
    if not name:
        return ""
    found = families(name)
    if not found:
        return f"The name {name} has no address here: check it, and this machine's DNS."
    if found == {socket.AF_INET6} and side == "target":
        return f"{name} has an IPv6 address only. {_SESSION_POOLER}"
    return "Check that this machine may reach it (firewall, allowed addresses), and that it is awake."
