"""What companions see of each other: id and username, unless [access] companions_see says more. One's own row is
complete, and `select *` works: as people with a token ask, in their role and with their claims."""

from typing import Any

import pytest
from pydantic import ValidationError

from mirror.mapping import AccessOptions, Mapping
from tests.bed.callers import Project
from tests.bed.target_side import Connection, an_id, as_role, membership, put_in_place, scope, trip, user

pytestmark = pytest.mark.sql

ANN, BOB, EVE, ROME = an_id(1), an_id(2), an_id(3), an_id(11)
PROFILES = "select id::text, username, email, subject from public.my_companion_profiles() order by id"
ROWS = "select id::text, username, email, subject from (select * from public.users) as u order by id"


def row(who: str, *hidden: str) -> tuple[Any, ...]:
    name = {ANN: "ann", BOB: "bob", EVE: "eve"}[who]
    columns = {"username": name, "email": f"{name}@example.org", "subject": f"sub-{name}"}
    return (who, *(None if column in hidden else value for column, value in columns.items()))


async def seen(url: str, target: Connection, mapping: Mapping, query: str) -> dict[str, list[tuple[Any, ...]]]:
    """What each of them gets: Ann and Bob are in Rome, Eve is nowhere."""
    people = [row(who) for who in (ANN, BOB, EVE)]
    put_in_place(as_role(url, "hosted_postgres"), mapping=mapping)
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [user(i, name, email=email, subject=subject) for i, name, email, subject in people]),
        scope("trips", [trip(ROME)]),
        scope("trip_memberships", [membership(ROME, ANN), membership(ROME, BOB)]),
    )
    answers = {}
    for i, _, _, subject in people:
        async with project.signed_in(subject if mapping.users.subject else i):
            answers[i] = await project.rows(query)
    return answers


@pytest.fixture(params=["by id", "by subject"])
def identity(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"users": {"subject": "clerk_id"}} if request.param == "by subject" else {}


def mapping(identity: dict[str, Any], *columns: str) -> Mapping:
    return Mapping.model_validate(identity | ({"access": {"companions_see": columns}} if columns else {}))


async def test_the_table_shows_ones_own_row_and_all_of_it(
    target_url: str, target: Connection, identity: dict[str, Any]
) -> None:
    assert await seen(target_url, target, mapping(identity), ROWS) == {who: [row(who)] for who in (ANN, BOB, EVE)}


async def test_companions_see_the_name_and_nothing_else(
    target_url: str, target: Connection, identity: dict[str, Any]
) -> None:
    hidden = ("email", "subject")
    assert await seen(target_url, target, mapping(identity), PROFILES) == {
        ANN: [row(ANN), row(BOB, *hidden)],
        BOB: [row(ANN, *hidden), row(BOB)],
        EVE: [row(EVE)],
    }


async def test_the_mapping_may_show_more(target_url: str, target: Connection) -> None:
    with_email = await seen(target_url, target, mapping({}, "username", "email"), PROFILES)
    assert with_email[ANN] == [row(ANN), row(BOB, "subject")]
    assert (await seen(target_url, target, mapping({}, "username", "email"), ROWS))[ANN] == [row(ANN)]
    everything = mapping({}, "username", "email", "subject")
    for query in (PROFILES, ROWS):
        assert await seen(target_url, target, everything, query) == {
            ANN: [row(ANN), row(BOB)],
            BOB: [row(ANN), row(BOB)],
            EVE: [row(EVE)],
        }


def test_what_is_no_column_is_refused() -> None:
    with pytest.raises(ValidationError, match="companions_see"):
        AccessOptions.model_validate({"companions_see": ["password"]})
