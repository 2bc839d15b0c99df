"""URLs, and the border where psycopg's errors become ours."""

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.errors import ConfigError, Incompatible, MirrorError, Refused, Superseded, Unreachable
from mirror.postgres import connect_blocking, parameters, refuse_one_database, refuse_pooled_host
from mirror.translation import translate

# Nobody listens on port 1 of this machine: whatever libpq makes of such a URL, it fails at once.
NOWHERE = "127.0.0.1:1/app"


def answer(name: str, message: str) -> psycopg.Error:
    return getattr(psycopg.errors, name)(message)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/d",
        "postgres://u:p%40%2F@h/d?sslmode=require",
        "postgresql:///d?host=/var/run/postgresql",
        "postgresql://u@h1:5432,h2:5433/d",
        "host=h dbname=d user=u password='a://b'",
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_what_libpq_understands_is_a_url(url: str, side: str) -> None:
    assert parameters(url, side)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://",
        "mysql://u:hunter2@h/d",
        "https://u:hunter2@h/d?x=y",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@h:0/d",
        "postgresql://u:hunter2@h:65536/d",
        "postgresql://u:hunter2@h:5432/d?sslmod=require",
        "postgresql://u:hunter2%zz@h/d",
        "postgresql://u:hunter2@[::1/d",
        "postgresql://u:hunter2/x@h:5432/d",  # libpq: host u, port hunter2
        "postgresql://u:123/hunter2@h/d",  # libpq: host u, port 123, database hunter2@h/d
        "postgresql://u:p@hunter2@h:5432/d",  # libpq: password p, host hunter2@h
    ],
)
def test_what_cannot_be_meant_is_named_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parameters(url, "target")
    assert str(refused.value).startswith("MIRROR_TARGET_URL is not a Postgres URL. It looks like postgresql://user:")
    assert "hunter2" not in str(refused.value)


ANYTHING = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8)


@given(before=ANYTHING, after=ANYTHING)
@example(before="", after="/more")
@example(before="12345/", after="")
@example(before="", after="@more")
@example(before="p@", after="?a=b")
@example(before="000%80", after="%")
@example(before="[", after=" more")
@pytest.mark.parametrize(
    "shape",
    ["postgresql://someone:{}@" + NOWHERE, "postgresql://{}@" + NOWHERE, "postgresql://someone:{}@127.0.0.1:x/d"],
)
def test_no_message_carries_a_password(shape: str, before: str, after: str) -> None:
    """Unescaped, as people paste it."""
    with pytest.raises(MirrorError) as failed:
        connect_blocking(shape.format(f"{before}hunter2{after}"), "source").close()
    assert "hunter2" not in str(failed.value)


def test_a_pooled_host_is_refused_with_the_direct_one() -> None:
    with pytest.raises(ConfigError, match=r"Use the direct host ep-x\.eu\.aws\.neon\.tech\.$"):
        refuse_pooled_host("postgresql://u:p@ep-x-pooler.eu.aws.neon.tech/d")
    refuse_pooled_host("postgresql://u:p@ep-x.eu.aws.neon.tech/d")


def test_the_transaction_pooler_of_supabase_is_refused() -> None:
    pooler = "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:{}/postgres"
    with pytest.raises(ConfigError, match="Use port 5432 of the same host"):
        parameters(pooler.format(6543), "target")
    assert parameters(pooler.format(5432), "target")
    assert parameters("postgresql://u@h:6543/d", "target")


@pytest.mark.parametrize(
    ("source", "target", "same"),
    [
        ("postgresql://a:x@h/d", "postgresql://b:y@h:5432/d?sslmode=require", True),
        ("postgresql://h/d", "postgresql://h/e", False),
        ("postgresql://h:5432/d", "postgresql://h:5433/d", False),
        ("postgresql://h/d", "postgresql://g/d", False),
        ("postgresql://d@h", "postgresql://x@h/d", True),
    ],
)
def test_one_database_is_not_mirrored_into_itself(source: str, target: str, same: bool) -> None:
    if not same:
        refuse_one_database(source, target)
        return
    with pytest.raises(ConfigError, match="are the same database"):
        refuse_one_database(source, target)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer("UndefinedTable", "no such table"), Refused, "source: no such table"),
        (answer("InsufficientPrivilege", "permission denied"), Refused, "lacks a right; see `mirror install`"),
        (answer("QueryCanceled", "statement timeout"), Refused, "source: statement timeout"),
        (answer("AdminShutdown", "terminating connection"), Unreachable, "source: terminating connection"),
        (answer("ConnectionFailure", "gone"), Unreachable, "source: gone"),
        (psycopg.OperationalError("server closed it\n\tThis probably means"), Unreachable, "source: server closed it"),
        (psycopg.OperationalError(), Unreachable, "source: OperationalError"),
        (
            psycopg.OperationalError("connection failed: FATAL:  password authentication failed for user"),
            Unreachable,
            "source: password authentication failed for user. Check user, password and database in MIRROR_SOURCE_URL.",
        ),
        (
            psycopg.OperationalError("Multiple connection attempts failed. All failures were:\n- ::1: no\n- 127: no"),
            Unreachable,
            "source: ::1: no",
        ),
        (
            psycopg.OperationalError('connection is bad: invalid sslmode value: "banana"'),
            ConfigError,
            'MIRROR_SOURCE_URL: invalid sslmode value: "banana"',
        ),
        (
            psycopg.OperationalError("connection failed: unsupported startup parameter: options"),
            Unreachable,
            "looks like a connection pooler",
        ),
    ],
)
def test_errors_are_translated_once(error: psycopg.Error, kind: type[MirrorError], words: str) -> None:
    ours = translate(error, "source")
    assert type(ours) is kind
    assert words in str(ours)


@pytest.mark.parametrize(
    ("state", "kind"), [("PT409", Superseded), ("PT412", Incompatible), ("PT428", Incompatible), ("PT500", Refused)]
)
def test_what_the_target_says_on_purpose(state: str, kind: type[MirrorError]) -> None:
    error = psycopg.DatabaseError("no")
    error.sqlstate = state
    assert type(translate(error, "target")) is kind
