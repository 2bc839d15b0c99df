"""The doctor without a database: what settings tell alone, what is said how, and the exit code."""

import base64
import json
import socket
from typing import Any

import pytest
from pydantic import SecretStr

from mirror.cli import doctor
from mirror.config import load_settings
from mirror.demo.ink import Ink
from mirror.doctor import address, here, key, source
from mirror.doctor.catalog import checks, values
from mirror.doctor.clock import judged
from mirror.doctor.finding import Finding, Verdict, exit_code
from mirror.https import Https
from tests.bed.findings import fired, silent, wrong

NOW = 1_800_000_000.0
PROJECT = "https://abcdefgh.supabase.co"
NEON = "postgresql://u:p@ep-x.eu-central-1.aws.neon.tech/db"


def jwt(**claims: object) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "x"}, claims)
    ]
    return ".".join([*parts, "hunter2"])


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (jwt(role="anon"), "error: this is not the service_role key"),
        (jwt(role="service_role", exp=NOW - 1), "error: this key expired on 2027-01-15"),
        (jwt(role="service_role", exp=NOW + 86400), "warning: this key expires on 2027-01-16"),
        (jwt(role="service_role", ref="other"), "error: this key is of another project"),
        (
            jwt(role="service_role", ref="abcdefgh", exp=NOW + 1e8),
            "warning: a legacy service_role key: Supabase retires",
        ),
        ("hunter2", "error: this is neither a secret key nor"),
        ("a.%%%.c", "error: this is neither a secret key nor"),
    ],
)
def test_a_key_is_judged_without_asking_anybody(secret: str, said: str) -> None:
    found = wrong(key.examine(Https(PROJECT, SecretStr(secret)), NOW))
    fired(found, "key", said)
    assert "hunter2" not in str(found)


def test_a_secret_key_is_fine() -> None:
    silent(key.examine(Https(PROJECT, SecretStr("sb_secret_x")), NOW))


def resolved(monkeypatch: pytest.MonkeyPatch, *families: socket.AddressFamily) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[tuple[Any, ...]]:
        if not families:
            raise socket.gaierror
        return [(family, None, None, "", None) for family in families]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_host_without_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://u:p@db.abcdefgh.supabase.co/postgres"
    resolved(monkeypatch, socket.AF_INET6)
    fired(wrong(address.ipv6_only(url)), "ipv6", "warning: db.abcdefgh.supabase.co has an IPv6 address only")
    fired(wrong(address.ipv6_only(url)), "ipv6", "Use the session pooler")
    assert "session pooler" in address.cure(url, "target")
    resolved(monkeypatch, socket.AF_INET6, socket.AF_INET)
    silent(address.ipv6_only(url))
    assert "firewall" in address.cure(url, "target")
    resolved(monkeypatch)
    silent(address.ipv6_only(url))
    assert "has no address here" in address.cure(url, "target")
    assert list(address.ipv6_only("postgresql:///x?host=/tmp")) == []


def test_what_the_heartbeat_costs_on_neon() -> None:
    (awake,) = address.neon(NEON, load_settings({}))
    assert (awake.verdict, awake.check) == ("ok", "scale to zero")
    assert "asking every 5 s keeps this Neon compute awake: about 730 compute hours a month" in awake.sentence
    assert awake.cure
    slow = load_settings(
        {"MIRROR_POLL_INTERVAL": "10m", "MIRROR_HEARTBEAT_INTERVAL": "10m", "MIRROR_STALE_AFTER": "1h"}
    )
    fired(
        wrong(address.neon(NEON, slow)),
        "scale to zero",
        "warning: asking only every 600 s lets this Neon compute sleep",
    )
    assert list(address.neon("postgresql://u:p@db.example.org/db", slow)) == []


@pytest.mark.parametrize(("theirs", "said"), [(1010.0, "10 s ahead of"), (990.0, "10 s behind"), (1001.0, "")])
def test_clocks_that_differ(theirs: float, said: str) -> None:
    finding = judged("target", theirs, 1000.0, 1000.0)
    assert (finding.verdict == "warning", said in finding.sentence) == (bool(said), True)


def test_a_slow_answer_is_not_taken_for_a_wrong_clock() -> None:
    assert judged("target", 1000.5, 1000.0, 1010.0).verdict == "ok"
    assert judged("target", 1020.0, 1000.0, 1010.0).verdict == "warning"


def test_a_psycopg_that_loses_notifications() -> None:
    fired(wrong(here.examine("3.2.9")), "psycopg", "error: psycopg 3.2.9 loses notifications")
    silent(here.examine("3.2.10"))
    silent(here.examine())


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(["ok", "warning"], 0), (["ok", "unknown"], 3), (["unknown", "error"], 1), (["error"], 1), ([], 0)],
)
def test_what_is_wrong_outweighs_what_is_not_known(verdicts: list[Verdict], code: int) -> None:
    assert exit_code(Finding("here", "x", verdict, "y") for verdict in verdicts) == code


def test_what_is_wrong_comes_first_and_the_rest_is_named() -> None:
    findings = [
        Finding("source", "clock", "ok", "it is right"),
        Finding("source", "outbox", "warning", "it waits", "Start it."),
        Finding("source", "triggers", "error", "gone", "Run it."),
        Finding("source", "scale to zero", "ok", "awake", "Or not."),
    ]
    assert list(doctor._lines(findings, Ink(colours=False))) == [
        "source",
        "  error    triggers: gone",
        "           -> Run it.",
        "  warning  outbox: it waits",
        "           -> Start it.",
        "  ok       scale to zero: awake",
        "           -> Or not.",
        "  ok       clock",
        "1 error(s), 1 warning(s), 2 ok",
    ]


def test_nothing_secret_nobodys_address_and_no_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_SOURCE_URL", "postgresql://u:hunter2@h/d")
    said = Finding("source", "x", "error", "ana@example.org \x1b]0;owned\x07 hunter2", "ask bob@example.org")
    discreet = doctor._discreet(said)
    assert (discreet.sentence, discreet.cure) == ("*** \\x1b]0;owned\\x07 ***", "ask ***")


def test_checks_of_a_file_have_names_of_their_own() -> None:
    names_of_places = (
        "relations columns fingerprint given policies foreign_subjects status_filtered let_send "
        "is_active needs_user few"
    )
    places = dict.fromkeys([*names_of_places.split(), *source.LIMITS], "x")
    for side in ("source", "target"):
        names = [c.name for file in ("doctor", "doctor_installed") for c in checks(f"{side}/{file}.sql", places)]
        assert len(names) == len(set(names)) > 10
        assert all(c.query for c in checks(f"{side}/doctor.sql", places))


def test_rows_as_a_table() -> None:
    assert values([(1, "a'b")], ("oid", "text")) == "(select 1::oid, 'a''b'::text)"
    assert values([], ("oid",)) == "(select null::oid where false)"
