"""One digest, computed by two databases of different releases, for every kind of key: equal when the rows are equal,
and never otherwise."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from mirror.demo.servers import Server, ServerError, temporary_directory
from tests.bed.backends import Pair
from tests.bed.daemons import MIRRORED, becomes_equal, install, leading, projections, rows, value
from tests.bed.proofs import asked, counted, differences, no_drift, quiet, slices_of, verified
from tests.bed.templates import APPLICATION

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]

TRIP_COLUMNS, USER_COLUMNS = "(id, name, created_by)", "(id, subject, email, username)"
IDS = {
    "uuid": [f"0000000{n}-0000-4000-8000-00000000000{n}" for n in (1, 2, 9)],
    "text": ["1:~", "é|", "O'Brien \"\\"],
    "integer": ["-5", "0", "2147483647"],
    "bigint": ["-9007199254740993", "2", "9223372036854775807"],
}
NASTY = [None, "", "~", "1:~", "a", "á", "a\u0301", "a|", "'\"\\", "x" * 10_000, "x" * 9_999 + "y", "😀", "a\nb", "\t"]


async def keyed(source: Connection, key: str) -> None:
    """The application's tables with keys of this type."""
    await source.execute("drop table users, trips, trip_memberships")
    await source.execute(APPLICATION.replace("uuid", key))


async def fill(source: Connection, target: Connection, key: str) -> None:
    """The same rows on both sides, in another order; without a daemon."""
    first, second, third = IDS[key]
    users = [(first, None, "~"), (second, "~", None), (third, "1:a", "b|c")]
    trips = [(first, "~", second)]
    members = [(first, second, None, "~"), (first, third, "x" * 10_000, "é"), (first, first, "", "a|b")]
    for connection, order in ((source, 1), (target, -1)):
        subject = "" if connection is source else "subject, "
        for row in users[::order]:
            given = row if connection is source else (row[0], row[0], *row[1:])
            places = ", ".join(["%s"] * len(given))
            await connection.execute(f"insert into users (id, {subject}email, username) values ({places})", given)
        for row in trips[::order]:
            await connection.execute(f"insert into trips {TRIP_COLUMNS} values (%s, %s, %s)", row)
        for member in members[::order]:
            await connection.execute(
                "insert into trip_memberships (trip_id, user_id, role, status) values (%s, %s, %s, %s)", member
            )


async def is_equal(source: Connection, target: Connection, table: str, *bounds: str | None) -> bool:
    """The source's digest, checked by the target. Without JIT, as in the daemon's sessions."""
    await source.execute("set jit = off")
    after1, after2, upto1, upto2 = bounds or (None,) * 4
    reading = await value(
        source,
        "select mirror.read_digest(jsonb_build_object('table', %s::text, 'after1', %s::text, 'after2', %s::text, "
        "'upto1', %s::text, 'upto2', %s::text, 'rows', 1000))",
        table, after1, after2, upto1, upto2,
    )  # fmt: skip
    check = Jsonb(reading["check"])
    checked = await value(target, "select mirror.check_digest(%s)", check)
    return bool(checked["equal"])


@pytest.mark.parametrize("key", list(IDS))
async def test_equal_rows_have_equal_digests_and_any_difference_in_any_column_shows(
    source: Connection, target: Connection, source_url: str, target_url: str, key: str
) -> None:
    await keyed(source, key)
    install(source_url, target_url)
    await fill(source, target, key)
    columns = {
        "users": ("subject", "email", "username"),
        "trips": ("name", "created_by"),
        "trip_memberships": ("role", "status"),
    }
    for table, names in columns.items():
        assert await is_equal(source, target, table)
        keys = await (await target.execute(f"select ctid from {table}")).fetchall()
        assert keys
        for name in names:
            tried = [*IDS[key], None] if name == "created_by" else NASTY
            before = await value(target, f"select {name} from {table} where ctid = %s", *keys[0])
            for other in tried:
                if other == (None if before is None else str(before)):
                    continue
                async with target.transaction(force_rollback=True):
                    await target.execute(f"update {table} set {name} = %s where ctid = %s", [other, *keys[0]])
                    assert not await is_equal(source, target, table), (table, name, before, other)
        for statement in (
            f"delete from {table} where ctid = (select min(ctid) from {table})",
            f"update {table} set {names[-1]} = {names[0]}, {names[0]} = {names[-1]}" if table != "trips" else "",
        ):
            if statement:
                async with target.transaction(force_rollback=True):
                    await target.execute(statement)
                    assert not await is_equal(source, target, table), statement
        assert await is_equal(source, target, table)


@pytest.mark.parametrize("pair", [
    (("a", "b"), ("ab", "")), (("1:a", ""), ("1", "a")), (("a", None), ("a~", "")), (("", "~"), ("0:~", None)),
    (("2:ab", "c"), ("2", "ab1:c")), ((None, "~"), ("~", None)), (("a|", "b"), ("a", "|b")),
    (("1:a1:b", "c"), ("1:a", "b1:c")),
])  # fmt: skip
async def test_no_value_can_be_written_so_that_it_looks_like_two(
    source: Connection, target: Connection, source_url: str, target_url: str, pair: tuple[Any, Any]
) -> None:
    install(source_url, target_url)
    (email, username), (other_email, other_username) = pair
    key = IDS["uuid"][0]
    await source.execute("insert into users (id, email, username) values (%s, %s, %s)", [key, email, username])
    await target.execute("insert into users values (%s, %s, %s, %s)", [key, key, email, username])
    assert await is_equal(source, target, "users")
    await target.execute("update users set email = %s, username = %s", [other_email, other_username])
    assert not await is_equal(source, target, "users")


async def test_what_two_rows_exchange_shows(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The same texts in the same columns, of other rows: an exclusive or must not cancel that out."""
    install(source_url, target_url)
    for key, name in zip(IDS["uuid"], ("a", "b", "b"), strict=True):
        await source.execute("insert into users (id, username) values (%s, %s)", [key, name])
        await target.execute("insert into users (id, subject, username) values (%s, %s, %s)", [key, key, name])
    assert await is_equal(source, target, "users")
    await target.execute("update users set username = case when id = %s then 'b' else 'a' end "
                         "where id in (%s, %s)", [IDS["uuid"][0], *IDS["uuid"][:2]])  # fmt: skip
    assert not await is_equal(source, target, "users")


@contextmanager
def _with_icu(servers: Pair, side: str) -> Iterator[str]:
    """A database whose texts sort like words (a, B, b, Z), not like bytes. Debian's PostgreSQL knows how."""
    name = f"mirror_words_{secrets.token_hex(4)}"
    make = "create database {} template template0 locale_provider icu icu_locale 'en' encoding 'UTF8'"
    ours = getattr(servers, side)
    with psycopg.connect(ours.admin_url, autocommit=True) as conn:
        try:
            conn.execute(sql.SQL(make).format(sql.Identifier(name)))
        except psycopg.Error:
            try:
                with (
                    temporary_directory() as directory,
                    Server.start(15, directory) as server,
                    psycopg.connect(server.url(), autocommit=True) as other,
                ):
                    other.execute(sql.SQL(make).format(sql.Identifier(name)))
                    yield server.url(name)
            except (ServerError, psycopg.errors.FeatureNotSupported) as error:
                pytest.skip(f"no PostgreSQL with ICU here: {error}")
        else:
            yield ours.url(name)
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


WORDS = ["a", "B", "b", "A", "Z", "z", "é", "e", "ä", "-", "_a", "a-b", "ab", "10", "9", " x", "~", "😀", "ß", "Ω"]


@pytest.mark.parametrize("side", ["source", "target"])
async def test_text_ids_have_one_order_whatever_the_collation_of_a_database(
    servers: Pair,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
) -> None:
    slices_of(monkeypatch, 3)
    with _with_icu(servers, side) as words_url:
        urls = (words_url, target_url) if side == "source" else (source_url, words_url)
        async with _connected(urls[0]) as source, _connected(urls[1]) as target:
            assert await value(source if side == "source" else target, "select 'a' < 'B'")
            if side == "source":
                await source.execute(APPLICATION)
            await keyed(source, "text")
            await source.execute("insert into users (id) select unnest(%s::text[])", [WORDS])
            await source.execute("insert into trips (id, name) select unnest(%s::text[]), 'T'", [WORDS])
            await source.execute(
                "insert into trip_memberships (trip_id, user_id) select t.id, u.id from trips t, users u"
            )
            install(*urls)
            async with quiet(*urls, MIRROR_BATCH_ROWS="7") as daemon:
                await leading(daemon)
                await becomes_equal(source, target)
                assert counted(await verified(source)) == no_drift()
                await target.execute(
                    "delete from trips where id in ('a', 'Z', 'é'); insert into trips values ('Y'), ('aa')"
                )
                await target.execute("delete from trip_memberships where user_id in ('B', '~', 'Ω') and trip_id > 'c'")
                await target.execute("insert into trip_memberships values ('b', 'nobody'), ('', ''), ('😀', '😀😀')")
                await target.execute("update users set username = 'x' where id in ('-', '10', 'ß')")
                drifted = await differences(source, target)
                state, result = await asked(source, "resync()")
                assert (state, counted(result["tables"])) == ("done", drifted)
                assert await rows(source, projections()) == await rows(target, MIRRORED)
