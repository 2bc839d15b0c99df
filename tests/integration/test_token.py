"""Python, the primary and Supabase mean the same by "has": random snapshots and tokens, asked of all three."""

import random

import psycopg
import pytest

from mirror.token import Snapshot, Token, read_snapshot, read_token
from tests.bed.target_side import put_in_place

HIGHEST = 60
BY_DEFINITION = """
select not exists (select from generate_series(1, %s) as xid
                   where (pg_visible_in_snapshot(xid::text::xid8, t.seen::pg_snapshot) or xid = t.own)
                     and not pg_visible_in_snapshot(xid::text::xid8, t.here::pg_snapshot))
from unnest(%s::text[], %s::text[], %s::integer[]) with ordinality as t(here, seen, own, n) order by t.n
"""
IN_THE_TARGET = """
select mirror.has_seen(t.here::pg_snapshot, t.seen::pg_snapshot)
   and coalesce(pg_visible_in_snapshot(t.own::text::xid8, t.here::pg_snapshot), true)
from unnest(%s::text[], %s::text[], %s::integer[]) with ordinality as t(here, seen, own, n) order by t.n
"""


def a_snapshot(chance: random.Random) -> str:
    xmin = chance.randint(1, 20)
    xmax = chance.randint(xmin, xmin + chance.choice((0, 3, 30)))
    xip = sorted(chance.sample(range(xmin, xmax), chance.randint(0, min(4, xmax - xmin))))
    return f"{xmin}:{xmax}:{','.join(map(str, xip))}"


def in_python(here: str, seen: str, own: int | None) -> bool:
    snapshot, token = read_snapshot(here), read_token(f"x/{own or '-'}/{seen}")
    assert isinstance(snapshot, Snapshot)
    assert isinstance(token, Token)
    return token.lacks(snapshot) is None


@pytest.mark.sql
async def test_python_and_both_databases_agree(target_url: str, target: psycopg.AsyncConnection) -> None:
    put_in_place(target_url)
    chance = random.Random(4)
    cases = [
        (a_snapshot(chance), a_snapshot(chance), chance.choice((None, chance.randint(1, HIGHEST)))) for _ in range(3000)
    ]
    expected = [in_python(*case) for case in cases]
    columns = [list(column) for column in zip(*cases, strict=True)]
    assert 200 < sum(expected) < 2800, "both answers are tried"
    defined = await (await target.execute(BY_DEFINITION, [HIGHEST, *columns])).fetchall()
    assert [has for (has,) in defined] == expected
    answered = await (await target.execute(IN_THE_TARGET, columns)).fetchall()
    assert [has for (has,) in answered] == expected
    assert await value_of_a_real_one(target)


async def value_of_a_real_one(connection: psycopg.AsyncConnection) -> bool:
    """What PostgreSQL writes is what is read here, also inside a transaction that has written."""
    async with connection.transaction():
        await connection.execute("select pg_current_xact_id()")
        row = await (await connection.execute("select pg_current_snapshot()::text")).fetchone()
    return row is not None and read_snapshot(row[0]) is not None
