"""mirror_apply: the target becomes equal to the source within a batch's scopes and nowhere else, all or nothing."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.bed.backends import Pair
from tests.bed.target_side import (
    BIGINTS,
    INTEGERS,
    TEXTS,
    UUIDS,
    Connection,
    Row,
    Writer,
    an_id,
    membership,
    position,
    put_in_place,
    scope,
    span,
    trip,
    user,
)

pytestmark = pytest.mark.sql

ALL = ("users", "trips", "trip_memberships")
AWKWARD = [
    "",
    "' or '1'='1",
    '"double", \\backslash\\, $dollar$ and {{places}}',
    "Zoë 東京 \u202e rtl 🏳️‍🌈",
    "line\nbreak\tand tab",
    "~NULL~",
    "x" * 10_000,
]


@pytest.fixture
async def writer(target_url: str, target: Connection) -> Writer:
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    return writer


async def content(writer: Writer, table: str) -> list[Row]:
    """The rows of a table, without the columns that are not the mirror's."""
    columns = {
        "users": "id, subject, email, username",
        "trips": "id, name, created_by",
        "trip_memberships": "trip_id, user_id, role, status",
    }[table]
    return [
        row
        for (row,) in await writer.rows(
            f"select to_jsonb(t) from (select {columns} from public.{table} order by 1, 2) t"
        )
    ]


async def members(writer: Writer) -> list[tuple[Any, Any]]:
    return [(row["trip_id"], row["user_id"]) for row in await content(writer, "trip_memberships")]


async def test_rows_are_put_where_they_are_missing_and_removed_where_they_are_gone(writer: Writer) -> None:
    first = await writer.apply(
        scope("trip_memberships", [membership(an_id(1), an_id(2))]),
        scope("users", [user(an_id(2), "ann"), user(an_id(3), "bob")]),
        scope("trips", [trip(an_id(1), "Rome", an_id(2))]),
    )
    assert first["counts"] == {"users": {"upsert": 2}, "trips": {"upsert": 1}, "trip_memberships": {"upsert": 1}}
    assert await content(writer, "trips") == [trip(an_id(1), "Rome", an_id(2))]
    second = await writer.apply(
        scope("users", [user(an_id(2), "anna")], gone=[{"id": an_id(3)}, {"id": an_id(4)}]),
        scope("trip_memberships", gone=[{"trip_id": an_id(1), "user_id": an_id(2)}]),
    )
    assert second["counts"] == {"users": {"upsert": 1, "delete": 1}, "trip_memberships": {"delete": 1}}
    assert await content(writer, "users") == [user(an_id(2), "anna")]
    assert await content(writer, "trip_memberships") == []


async def test_an_equal_row_is_not_written_again(writer: Writer) -> None:
    scopes = [
        scope("users", [user(an_id(1), "ann"), user(an_id(2), None)]),
        scope("trips", [trip(an_id(1), "Rome")]),
        scope("trip_memberships", [membership(an_id(1), an_id(1), None)]),
    ]
    await writer.apply(*scopes)
    versions = " union all ".join(f"select '{t}', ctid::text, xmin::text, xmax::text from public.{t}" for t in ALL)
    before = await writer.rows(versions)
    again = await writer.apply(*scopes)
    ranges = [one | {"range": span(one["table"])["range"]} for one in scopes]
    assert (await writer.apply(*ranges))["counts"] == again["counts"] == {}
    assert await writer.rows(versions) == before


@pytest.mark.parametrize(
    ("table", "row", "column"),
    [
        *(("users", user(an_id(1), "ann", email="a@x"), column) for column in ("subject", "email", "username")),
        ("trips", trip(an_id(1), "Rome", an_id(1)), "name"),
        ("trips", trip(an_id(1), "Rome", an_id(1)), "created_by"),
        *(("trip_memberships", membership(an_id(1), an_id(1)), column) for column in ("role", "status")),
    ],
)
async def test_every_mirrored_column_counts(writer: Writer, table: str, row: Row, column: str) -> None:
    await writer.apply(scope(table, [row]))
    values = (an_id(7), None, an_id(8)) if column == "created_by" else ("other", None, "Other")
    for value in values:
        changed = row | {column: value}
        assert (await writer.apply(scope(table, [changed])))["counts"] == {table: {"upsert": 1}}
        assert await content(writer, table) == [changed]


async def test_a_row_that_the_scopes_do_not_name_is_left_alone(writer: Writer) -> None:
    await writer.apply(scope("users", [user(an_id(1)), user(an_id(2))]), scope("trips", [trip(an_id(1))]))
    await writer.apply(scope("users", gone=[{"id": an_id(1)}]), scope("users"), scope("trips", gone=[]))
    assert [row["id"] for row in await content(writer, "users")] == [an_id(2)]
    assert len(await content(writer, "trips")) == 1


async def test_whole_trips_lose_the_members_that_are_not_in_the_rows(writer: Writer) -> None:
    everybody = [membership(an_id(t), an_id(u)) for t in (1, 2, 3) for u in (1, 2, 3)]
    await writer.apply(scope("trip_memberships", everybody))
    kept = membership(an_id(1), an_id(2), "OWNER")
    reply = await writer.apply(scope("trip_memberships", [kept], trips=[an_id(1), an_id(3), an_id(9)]))
    assert reply["counts"] == {"trip_memberships": {"delete": 5, "upsert": 1}}
    assert await members(writer) == [(an_id(t), an_id(u)) for t, u in ((1, 2), (2, 1), (2, 2), (2, 3))]


@pytest.mark.parametrize("table", ["users", "trips"])
@pytest.mark.parametrize(
    ("after", "upto", "left"),
    [
        (2, 4, [1, 2, 3, 5, 6]),
        (None, 4, [3, 5, 6]),
        (4, None, [1, 2, 3, 4]),
        (None, None, [3]),
        (6, None, [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_a_range_loses_what_is_not_in_its_rows(
    writer: Writer, table: str, after: int | None, upto: int | None, left: list[int]
) -> None:
    row: Callable[[str], Row] = user if table == "users" else trip
    await writer.apply(scope(table, [row(an_id(i)) for i in range(1, 7)]))
    inside = [row(an_id(3))] if (after or 0) < 3 <= (upto or 9) else []
    bounds = {"after": [an_id(after)] if after else [], "upto": [an_id(upto)] if upto else []}
    await writer.apply(span(table, inside, **bounds))  # type: ignore[arg-type]
    assert [r["id"] for r in await content(writer, table)] == [an_id(i) for i in left]


@pytest.mark.parametrize(
    ("after", "upto", "lost"),
    [
        ((1, 2), (3, 1), [(1, 3), (2, 1), (2, 2), (2, 3), (3, 1)]),
        ((), (1, 2), [(1, 1), (1, 2)]),
        ((3, 1), (), [(3, 2), (3, 3)]),
        ((1, 9), (2, 0), []),
        ((), (), [(t, u) for t in (1, 2, 3) for u in (1, 2, 3)]),
    ],
)
async def test_a_range_goes_across_trips(
    writer: Writer, after: tuple[int, ...], upto: tuple[int, ...], lost: list[tuple[int, int]]
) -> None:
    everybody = [(t, u) for t in (1, 2, 3) for u in (1, 2, 3)]
    await writer.apply(scope("trip_memberships", [membership(an_id(t), an_id(u)) for t, u in everybody]))
    await writer.apply(span("trip_memberships", after=[*map(an_id, after)], upto=[*map(an_id, upto)]))
    assert await members(writer) == [(an_id(t), an_id(u)) for t, u in everybody if (t, u) not in lost]


@pytest.mark.parametrize(
    ("after", "upto", "lost"), [((2, 1), (2, 2), [2]), ((), (2, 2), [1, 2]), ((2, 2), (), [3]), ((), (), [1, 2, 3])]
)
async def test_a_range_of_one_trip_touches_no_other(
    writer: Writer, after: tuple[int, ...], upto: tuple[int, ...], lost: list[int]
) -> None:
    everybody = [(t, u) for t in (1, 2, 3) for u in (1, 2, 3)]
    await writer.apply(scope("trip_memberships", [membership(an_id(t), an_id(u)) for t, u in everybody]))
    one_trip = span("trip_memberships", after=[*map(an_id, after)], upto=[*map(an_id, upto)], trip=an_id(2))
    await writer.apply(one_trip)
    assert await members(writer) == [(an_id(t), an_id(u)) for t, u in everybody if t != 2 or u not in lost]


async def test_scopes_of_one_batch_may_overlap(writer: Writer) -> None:
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(u)) for u in (1, 2, 3)]))
    present = [membership(an_id(1), an_id(u), "OWNER") for u in (2, 4)]
    reply = await writer.apply(
        scope("trip_memberships", [present[1]], gone=[{"trip_id": an_id(1), "user_id": an_id(1)}]),
        scope("trip_memberships", present, trips=[an_id(1)]),
        span("trip_memberships", present),
        scope("trip_memberships", present),
    )
    assert reply["counts"] == {"trip_memberships": {"delete": 2, "upsert": 2}}
    assert await content(writer, "trip_memberships") == present


async def test_a_row_that_the_source_could_not_read_is_not_gone(writer: Writer) -> None:
    await writer.apply(
        scope("users", [user(an_id(1)), user(an_id(2))]),
        scope("trips", [trip(an_id(1)), trip(an_id(2))]),
        scope("trip_memberships", [membership(an_id(1), an_id(1)), membership(an_id(1), an_id(2))]),
    )
    unread = {"k1": an_id(1), "k2": None, "reason": "division by zero"}
    unread_member = unread | {"k2": an_id(2)}
    reply = await writer.apply(
        span("users", refused=[unread]),
        span("trips", refused=[unread]),
        span("trip_memberships", [membership(an_id(1), an_id(1))], refused=[unread_member]),
    )
    assert reply["parked"] == {"users": 1, "trips": 1, "trip_memberships": 1}
    assert [row["id"] for row in await content(writer, "users")] == [an_id(1)]
    assert [row["id"] for row in await content(writer, "trips")] == [an_id(1)]
    assert await members(writer) == [(an_id(1), an_id(1))], "who cannot be proven to be a member is none"


@pytest.mark.parametrize("text", AWKWARD)
async def test_any_text_arrives_as_it_is(writer: Writer, text: str) -> None:
    rows = [user(an_id(1), text, email=text), user(an_id(2), None)]
    await writer.apply(scope("users", rows), scope("trips", [trip(an_id(1), text)]))
    assert await content(writer, "users") == rows
    assert await content(writer, "trips") == [trip(an_id(1), text)]
    assert (await writer.apply(span("users", rows)))["counts"] == {}


@pytest.mark.parametrize(
    ("types", "keys"),
    [
        (UUIDS, [an_id(3), "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
        (TEXTS, ["a'\"\\ \n b", "Z", "é", "a", "", "~"]),
        (INTEGERS, [-2147483648, 0, 2147483647]),
        (BIGINTS, [-9223372036854775808, 9007199254740993, 9223372036854775807]),
    ],
    ids=["uuid", "text", "integer", "bigint"],
)
async def test_keys_of_every_type(target_url: str, target: Connection, types: Row, keys: list[Any]) -> None:
    put_in_place(target_url, types)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(
        scope("users", [user(k) for k in keys]),
        scope("trips", [trip(k, "T", k) for k in keys]),
        scope("trip_memberships", [membership(k, k) for k in keys]),
    )
    assert {row["created_by"] for row in await content(writer, "trips")} == set(keys)
    assert set(await members(writer)) == {(k, k) for k in keys}
    # The outbox says keys as text.
    await writer.apply(
        scope("users", gone=[{"id": str(keys[0])}]),
        scope("trip_memberships", gone=[{"trip_id": str(keys[0]), "user_id": str(keys[0])}], rows=[]),
        scope("trip_memberships", trips=[str(keys[1])]),
    )
    assert {row["id"] for row in await content(writer, "users")} == set(keys[1:])
    assert set(await members(writer)) == {(k, k) for k in keys[2:]}


@pytest.fixture
def dictionary_url(servers: Pair) -> Iterator[str]:
    """A database that orders text as a dictionary does: a, B, c."""
    name = "mirror_test_dictionary"
    with psycopg.connect(servers.target.admin_url, autocommit=True) as admin:
        try:
            admin.execute(
                f"create database {name} template template0 encoding utf8 locale 'C' "
                "locale_provider icu icu_locale 'en-US'"
            )
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("this server knows no dictionary (built without ICU)")
        try:
            yield servers.target.url(name)
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


async def test_text_is_in_the_order_of_its_bytes_everywhere(dictionary_url: str) -> None:
    put_in_place(dictionary_url, TEXTS)
    async with await psycopg.AsyncConnection.connect(dictionary_url, autocommit=True) as connection:
        writer = Writer(connection)
        await writer.claim()
        assert await writer.one("select 'a' < 'B'"), "a dictionary"
        keys = ["A", "B", "a", "b", "ä"]  # in the order of their bytes
        await writer.apply(scope("users", [user(k) for k in keys]))
        await writer.apply(scope("trip_memberships", [membership(t, u) for t in keys for u in keys]))
        await writer.apply(span("users", [user("B")], after=["A"], upto=["a"]))
        assert await writer.rows('select id from public.users order by id collate "C"') == [(k,) for k in "ABbä"]
        await writer.apply(span("trip_memberships", after=["A", "b"], upto=["ä", "B"]))
        left = [("A", u) for u in ("A", "B", "a", "b")] + [("ä", u) for u in ("a", "b", "ä")]
        ordered = (
            'select trip_id, user_id from public.trip_memberships order by trip_id collate "C", user_id collate "C"'
        )
        assert await writer.rows(ordered) == left
        await writer.apply(span("trip_memberships", trip="ä", after=["ä", "b"]))
        assert await writer.rows(ordered) == left[:-1]


async def test_the_position_moves_only_when_it_is_given(writer: Writer) -> None:
    asked = "select snapshot, as_of::text, fresh_at, primed_at from mirror.state"
    await writer.apply(scope("users", [user(an_id(1))]))
    assert await writer.rows(asked) == [(None, None, None, None)]
    await writer.apply(position=position("10:12:10", "2026-05-01T10:00:00+00:00"))
    before = await writer.rows(asked)
    assert before[0][:2] == ("10:12:10", "2026-05-01 10:00:00+00")
    assert None not in before[0]
    await writer.apply(scope("users", [user(an_id(2))]))
    assert await writer.rows(asked) == before
    assert await writer.one("select batch from mirror.state") == 3


async def test_a_failure_leaves_nothing(writer: Writer) -> None:
    await writer.apply(scope("users", [user(an_id(1))]), position=position("10:10:"))
    before = await writer.rows("select to_jsonb(s) from mirror.state as s")
    broken = [scope("users", [user(an_id(2))], gone=[{"id": an_id(1)}]), scope("trips", gone=[{"id": "no uuid"}])]
    with pytest.raises(psycopg.errors.DatabaseError):
        await writer.apply(*broken, position=position("nonsense"))
    assert await writer.rows("select to_jsonb(s) from mirror.state as s") == before
    assert [row["id"] for row in await content(writer, "users")] == [an_id(1)]
    assert await writer.one("select count(*) from mirror.parked") == 0


@pytest.mark.parametrize(
    "scopes", [[{"table": "tripz", "rows": []}], [{"rows": []}], {"table": "users"}, "users", None]
)
async def test_what_is_no_scope_is_an_error_and_not_nothing(writer: Writer, scopes: Any) -> None:
    document = json.dumps({"epoch": writer.epoch, "batch": 1, "scopes": scopes})
    with pytest.raises(psycopg.errors.DatabaseError):
        await writer.connection.execute("select public.mirror_apply(%s)", [document])
    assert await writer.one("select batch from mirror.state") == 0


async def test_a_vacant_range_takes_its_rows_and_refuses_only_what_it_must(writer: Writer) -> None:
    """A first load inserts without looking; what is in the way is found all the same."""
    await writer.apply(scope("users", [user(an_id(9), "old")]))
    rows = [user(an_id(1), "ann"), user(an_id(9), "new")]
    assert (await writer.apply(span("users", rows, upto=[an_id(5)])))["counts"] == {"users": {"upsert": 2}}
    assert await content(writer, "users") == rows
