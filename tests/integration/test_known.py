"""What Supabase says of itself is decided in one place (schema/target/known.sql), from every reason there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from mirror.mapping import AccessOptions, Mapping
from tests.bed.callers import Project
from tests.bed.target_side import SOURCE, Row, an_id, membership, position, put_in_place, scope, trip, user

pytestmark = pytest.mark.sql
ANN, ROME = an_id(1), an_id(11)
PROOF = {"at": "2026-01-01T00:00:00+00:00", "reason": "start", "snapshot": "9:9:", "tables": {}}


def life(number: int, name: str = "0a1b2c3d", *, snapshot: str = "100:100:", **others: Any) -> Row:
    return SOURCE | {"life": {"number": number, "name": name, **others}, "snapshot": snapshot}


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def doubt(kind: str, since: str | None = None, about: str = "trips") -> Row:
    return {"kind": kind, "about": about, "reason": "why", "cure": "how", "since": since}


@pytest.fixture
async def project(target_url: str, target: psycopg.AsyncConnection) -> Project:
    """Members enter a trip while the mirror is at most a minute and a half old."""
    put_in_place(target_url, mapping=Mapping(access=AccessOptions(max_staleness=90)))
    return Project(target)


async def filled(project: Project, source: Row | None = None, snapshot: str = "9:9:") -> None:
    claimed = await project.writer.claim(source or SOURCE)
    at = position(snapshot, as_of=ago(0), fresh_at=ago(1)) | {"life": claimed["life"]}
    rows = scope("users", [user(ANN)]), scope("trips", [trip(ROME)]), scope("trip_memberships", [membership(ROME, ANN)])
    await apply(project, *rows, position=at, proof=PROOF)


async def apply(project: Project, *scopes: Row, **more: Any) -> Row:
    project.writer.batch += 1
    document = {"epoch": project.writer.epoch, "batch": project.writer.batch, "scopes": scopes, **more}
    return await project.writer._call("mirror_apply", document)


async def says(project: Project) -> tuple[Any, ...]:
    """Fresh, open to members, equal, the token of its snapshot, and the kinds of doubts; all surfaces agree."""
    fresh = await project.ask(ANN, "select public.mirror_is_fresh('90 seconds')")
    assert fresh is (await project.ask(ANN, "select public.mirror_staleness()") <= 90)
    status = await project.writer.status()
    assert fresh is (status["staleness_seconds"] is not None and status["staleness_seconds"] <= 90)
    assert fresh is await project.ask(ANN, "select public.is_trip_member(%s)", ROME)
    has = await project.ask(ANN, "select public.mirror_has(%s)", f"{SOURCE['install']}/-/9:9:")
    return fresh, status["equal"], has, [d["kind"] for d in status["doubts"]]


@pytest.mark.parametrize(
    ("kind", "since", "fresh", "equal"),
    [
        ("brake", None, False, False),
        ("life", None, False, False),
        ("tampered", None, False, False),
        ("capture", None, False, False),
        ("capture", 1000, False, False),
        ("capture", 5, True, False),
        ("unreadable", None, False, False),
        ("unreadable", 1000, False, False),
        ("unreadable", 5, True, False),
        ("parked", None, True, False),
        ("clock", None, True, True),
        ("doorbell", None, True, True),
    ],
)
async def test_what_a_doubt_of_the_daemon_takes_away(
    project: Project, kind: str, since: float | None, fresh: bool, equal: bool
) -> None:
    await filled(project)
    assert await says(project) == (True, True, True, [])
    await apply(project, doubts=[doubt("clock"), doubt(kind, None if since is None else ago(since))])
    assert await says(project) == (fresh, equal, True, ["clock", kind])
    await project.writer.claim()
    assert await says(project) == (fresh, equal, True, ["clock", kind]), "until the new leader says what it knows"
    await apply(project, doubts=[])
    assert await says(project) == (True, True, True, [])


async def test_the_brake_and_parked_rows_are_known_without_the_daemon(project: Project) -> None:
    await filled(project)
    await apply(project, braked={"trips": {"rows": 900, "would_delete": 800}})
    assert await says(project) == (False, False, True, ["brake"])
    await apply(project, doubts=[doubt("brake")])
    assert await says(project) == (False, False, True, ["brake"]), "said once"
    await apply(project, doubts=[], braked={})
    refused = scope("users") | {"refused": [{"k1": an_id(3), "k2": None, "reason": "too long"}]}
    await apply(project, refused)
    assert await says(project) == (True, False, True, ["parked"])


async def test_a_doubt_that_is_none_is_refused(project: Project) -> None:
    await filled(project)
    with pytest.raises(psycopg.errors.DataError):
        await apply(project, doubts=[doubt("capture", "yesterday, about noon")])


async def test_nothing_is_claimed_in_a_new_life_before_its_first_position(project: Project) -> None:
    await filled(project, life(3))
    assert await says(project) == (True, True, True, [])
    again = await project.writer.claim(life(3))
    assert (again["compared"], again["life"]) == (True, "3.0a1b2c3d")
    await apply(project, walks=[{"table": "trips", "trip": None, "since": "9:9:", "after": ["x", None], "rows": 1}])
    after = await project.writer.claim(life(4, "ffffffff", snapshot="5:5:", remembered=ago(20)))
    assert (after["compared"], after["primed"], after["walks"], after["proof"]) == (False, True, [], None)
    assert await says(project) == (False, False, False, ["life"])
    with pytest.raises(psycopg.Error) as raised:
        await apply(project, position=position("6:6:") | {"life": "3.0a1b2c3d"})
    assert raised.value.sqlstate == "PT409"
    await apply(project, position=position("6:6:"))  # of a release without lives: not taken for one
    assert (await says(project))[3] == ["life"]
    await apply(project, position=position("9:9:", ago(0), ago(0)) | {"life": "4.ffffffff"}, proof=PROOF)
    assert await says(project) == (True, True, True, [])


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("-/9:9:", None),  # of a source without lives
        ("-/9:12:", "early"),
        ("4.ffffffff/-/9:9:", None),
        ("4.ffffffff/11/9:9:", "early"),
        ("4/8/9:9:", None),  # before a daemon named it
        ("4/-/9:12:", "early"),
        ("4.eeeeeeee/-/9:9:", "foreign"),
        ("3.0a1b2c3d/-/9:9:", None),
        ("3.0a1b2c3d/5000/9:9000:", None),  # whatever of it is left is here
        ("5.ffffffff/-/1:1:", "early"),
        ("5/-/1:1:", "early"),
        ("x/-/9:9:", "garbage"),
        ("4.ffff ffff/-/9:9:", "garbage"),
        ("9999999999999999999/-/9:9:", "garbage"),
    ],
)
async def test_tokens_of_other_lives(project: Project, token: str, kind: str | None) -> None:
    await filled(project, life(4, "ffffffff", snapshot="9:9:"))
    verdict = await project.ask(ANN, "select public.mirror_check_token(%s)", f"{SOURCE['install']}/{token}")
    assert (verdict["kind"], verdict["has"]) == (kind, kind is None)


@pytest.mark.parametrize(
    ("claimed", "taken"),
    [
        (life(4, snapshot="9:9:"), True),
        (life(4, snapshot="8:8:"), False),  # the same life, and behind
        (life(4, "eeeeeeee"), False),  # a sibling
        (life(3), False),
        (life(5, snapshot="1:1:", remembered=30), True),  # a crash
        (life(7, snapshot="1:1:", remembered=30), True),
        (life(5, remembered=1000), False),  # an older copy, also when it has caught up
        (life(5, remembered=1000) | {"crash_loses_s": 2000}, True),
        (life(5, remembered=None), True),  # no daemon has led it before, so none was told anything
        (SOURCE | {"snapshot": "8:8:"}, False),
    ],
)
async def test_an_older_copy_is_refused_and_a_crash_is_not(project: Project, claimed: Row, taken: bool) -> None:
    await filled(project, life(4, snapshot="9:9:"))
    if "life" in claimed and claimed["life"].get("remembered"):
        claimed = claimed | {"life": claimed["life"] | {"remembered": ago(claimed["life"]["remembered"])}}
    if taken:
        assert (await project.writer.claim(claimed))["primed"]
        return
    with pytest.raises(psycopg.Error) as raised:
        await project.writer.claim(claimed)
    assert (raised.value.sqlstate, raised.value.diag.message_primary) == ("PT412", "the source went back in time")
    assert "mirror adopt" in str(raised.value.diag.message_hint)
    assert (await says(project))[0]
