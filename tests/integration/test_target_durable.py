"""What the target has said it did is forgotten in the source: it must be on the disk, whatever the defaults are of the
database, or of the role that PostgREST logs in as."""

import pytest

from tests.bed.target_side import SOURCE, Connection, Row, Writer, an_id, put_in_place, scope, user

pytestmark = pytest.mark.sql
USER = scope("users", [user(an_id(1))])


@pytest.fixture
async def writer(target_url: str, target: Connection) -> Writer:
    put_in_place(target_url)
    return Writer(target)


async def adopt(writer: Writer) -> Row:
    return await writer._call("mirror_adopt", SOURCE)


@pytest.mark.parametrize("default", ["off", "local", "remote_write"])
@pytest.mark.parametrize(
    "call", [Writer.claim, lambda writer: writer.apply(USER), adopt], ids=["claim", "apply", "adopt"]
)
async def test_the_commit_waits_for_the_disk(writer: Writer, default: str, call) -> None:  # type: ignore[no-untyped-def]
    await writer.claim()
    await writer.connection.execute(f"set synchronous_commit = {default}")
    async with writer.connection.transaction():
        await call(writer)
        at_commit = await writer.one("select current_setting('synchronous_commit')")
    assert at_commit == ("remote_write" if default == "remote_write" else "on")
    assert await writer.one("select current_setting('synchronous_commit')") == default, "for this transaction only"


async def test_a_direct_session_keeps_its_own_statement_timeout(writer: Writer) -> None:
    """The function names the limit for PostgREST, which reads it there."""
    names = await writer.one("select proconfig from pg_proc where oid = 'public.mirror_apply(jsonb)'::regprocedure")
    assert "statement_timeout=8s" in names
    await writer.claim()
    await writer.connection.execute("set statement_timeout = '60s'")
    async with writer.connection.transaction():
        await writer.apply(USER)
        assert await writer.one("select current_setting('statement_timeout')") == "1min"
