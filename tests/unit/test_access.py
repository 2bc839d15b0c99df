"""[access] of the mapping: what is right is rendered, what is wrong is said in one sentence."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.mapping import AccessOptions, Mapping, load_mapping
from mirror.render import literal
from mirror.target.access import access_places, argument_kinds, is_active_status, pattern, told
from mirror.target.install import schema_sql

UUID = "0b0e9e6c-3f1e-4a57-9d1a-111111111111"
TYPES = {"user_id": "uuid", "trip_id": "uuid", "created_by": "uuid"}


def loaded(tmp_path: Path, section: str) -> AccessOptions:
    path = tmp_path / "mirror.toml"
    path.write_text(f"[access]\n{section}\n", encoding="utf-8")
    return load_mapping(path).access


def test_everything_is_read(tmp_path: Path) -> None:
    access = loaded(
        tmp_path,
        """
        active = ["Joined"]
        topics = ["trip:{id}:e{epoch}", "room/{id}/*", "trip-messages-{id}", "v1.{id}~x@y=z|w+"]
        send = ["broadcast"]
        max_staleness = "1.5m"
        announce = "user:{sub}"
        """,
    )
    assert access == AccessOptions(
        active=("Joined",),
        topics=("trip:{id}:e{epoch}", "room/{id}/*", "trip-messages-{id}", "v1.{id}~x@y=z|w+"),
        send=("broadcast",),
        max_staleness=90.0,
        announce="user:{sub}",
    )


def test_nothing_live_and_nothing_that_closes_is_on_by_itself() -> None:
    access = AccessOptions()
    assert (access.max_staleness, access.announce) == (None, None)
    places = access_places(access, TYPES, subject_is_id=True)
    assert (places["has_epochs"], places["announces"]) == ("false", "false")
    assert "mirror.state" not in places["counts"], "no freshness, no look at the state"


TOPICS = "a list of topics with one {id} each, perhaps * or {epoch} after it and apart from it: "


@pytest.mark.parametrize(
    ("section", "key", "wanted"),
    [
        *((f'topics = ["{topic}"]', "topics", TOPICS) for topic in (
            "", "trip", "trip:{id}:{id}", "trip:{id}*", "*{id}", "trip:{id}{epoch}", "e{epoch}:{id}",
            "trip:{id}:{epoch}:{epoch}", "trip:{id}:{user}", "trip:{id}}", "{{id}}", "trip:{ID}", "trip {id}",
            "trip:{id}'", "trip:{id}$", "trip:{id}\\\\n", "trip:{id}:**", "tríp:{id}", "x" * 200 + "{id}",
        )),
        ('topics = "trip:{id}"', "topics", TOPICS),
        ("active = []", "active", "a list of statuses, such as"),
        ('active = "active"', "active", "a list of statuses, such as"),
        ('active = ["$mirror$"]', "active", "a list of statuses, such as"),
        ('send = ["everything"]', "send", 'a list of "broadcast" and "presence", or an empty one'),
        ('max_staleness = "soon"', "max_staleness", 'a duration in quotes such as "30s", more than 0 and at most 24h'),
        ('max_staleness = "0s"', "max_staleness", 'a duration in quotes such as "30s", more than 0 and at most 24h'),
        ('max_staleness = "25h"', "max_staleness", 'a duration in quotes such as "30s", more than 0 and at most 24h'),
        ("announce = true", "announce", 'a topic with one {sub}, such as "user:{sub}"'),
        ('announce = "user"', "announce", 'a topic with one {sub}, such as "user:{sub}"'),
        ('announce = "user:{sub}:*"', "announce", 'a topic with one {sub}, such as "user:{sub}"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path: Path, section: str, key: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, section)
    assert str(refused.value).startswith(f"{tmp_path / 'mirror.toml'}: [access] {key} must be {wanted}")


@pytest.mark.parametrize(
    ("topic", "kind", "given", "groups"),
    [
        ("trip:{id}", "uuid", f"trip:{UUID}", (UUID,)),
        ("trip:{id}:*", "uuid", f"trip:{UUID}:a:b", (UUID,)),
        ("trip-messages-{id}", "uuid", f"trip-messages-{UUID}", (UUID,)),
        ("trip-messages-{id}", "text", f"trip-messages-{UUID}", (UUID,)),
        ("trip:{id}:e{epoch}", "bigint", "trip:17:e4", ("17", "4")),
        ("trip:{id}", "integer", "trip:-17", ("-17",)),
        ("a.b+{id}|c", "integer", "a.b+17|c", ("17",)),
        ("a.b+{id}|c", "integer", "axb+17|c", None),
        ("trip:{id}", "uuid", f"trip:{UUID}:x", None),
        ("trip:{id}", "bigint", "trip:seventeen", None),
        ("trip:{id}", "text", "trip:a:b", None),
        ("trip:{id}", "text", "trip:", None),
        ("chat-{id}-*", "text", "chat-a-b-c", ("a",)),
        ("trip:{id}:e{epoch}", "uuid", f"trip:{UUID}:e", None),
        ("trip:{id}:e{epoch}", "uuid", f"trip:{UUID}:e-1", None),
    ],
)
def test_a_topic_as_a_pattern(topic: str, kind: str, given: str, groups: tuple[str, ...] | None) -> None:
    found = re.search(pattern(topic, kind), given, flags=re.DOTALL)
    assert (found.groups() if found else None) == groups


@given(st.text(min_size=1).filter(lambda text: "$" not in text and "\0" not in text))
def test_a_status_stays_within_its_quotes(status: str) -> None:
    active = is_active_status("status", AccessOptions(active=(status[:100],)))
    inside = re.search(r"array\[(?:lower\()?'((?:[^']|'')*)'\)?\]::text\[\]\)$", active, flags=re.DOTALL)
    assert inside is not None
    assert inside[1].replace("''", "'") == (status[:100].lower() if status[:100].isascii() else status[:100])


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("uuid", {"text", "uuid"}),
        ("text", {"text", "uuid"}),
        ("integer", {"text", "bigint"}),
        ("bigint", {"text", "bigint"}),
    ],
)
def test_postgrest_can_tell_the_overloads_apart(kind: str, arguments: set[str]) -> None:
    """It chooses by the names of the arguments, and has no answer when two fit."""
    kinds = argument_kinds(kind, "_me := null;")
    assert {k["type"] for k in kinds} == arguments
    assert len({k["name"] for k in kinds}) == len(kinds)


def test_no_place_is_left_over() -> None:
    for access in (
        AccessOptions(),
        AccessOptions(topics=("trip:{id}:e{epoch}",), announce="u:{sub}", max_staleness=1.0),
    ):
        mapping = Mapping(access=access)
        sql = schema_sql(TYPES, mapping).replace(literal(json.dumps(told(mapping), sort_keys=True)), "")
        assert not re.findall(r"\{sub\}|\{epoch\}", sql)


def test_a_subject_is_found_in_the_users_row_and_needs_it(tmp_path: Path) -> None:
    file = tmp_path / "mirror.toml"
    file.write_text("[users]\nsubject = 'clerk_id'\n[access]\nmembers_without_user = true\n")
    with pytest.raises(ConfigError, match="members_without_user and .users. subject do not go together"):
        load_mapping(file)
    file.write_text("[access]\nmembers_without_user = true\n")
    assert load_mapping(file).access.members_without_user
