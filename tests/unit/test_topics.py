"""One topic, two meanings: decided exactly, and held against a search of all short topics by another reader."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.mapping import AccessOptions
from mirror.target.access import pattern
from mirror.target.topics import Ambiguity, ambiguity, refuse_ambiguous, stops

UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
INTEGER = "(?:0|-?[1-9][0-9]*)"
ROME = "0b0e9e6c-3f1e-4a57-9d1a-111111111111"


def found(*topics: str, kind: str = "text", announce: str | None = None) -> Ambiguity | None:
    return ambiguity(AccessOptions(topics=topics, announce=announce), kind)


def readings(topic: str, pattern: str, kind: str) -> set[str]:
    """Each id that this topic can mean, by trying every place that the id could have in it."""
    before, after = (_expression(part) for part in pattern.split("{id}"))
    ids = {"uuid": UUID, "integer": INTEGER, "bigint": INTEGER}.get(kind, f"[^{re.escape(stops(pattern))}]+")
    return {
        topic[start:end].lower() if kind == "uuid" else topic[start:end]
        for start in range(len(topic))
        for end in range(start + 1, len(topic) + 1)
        if re.fullmatch(before, topic[:start], flags=re.DOTALL)
        and re.fullmatch(ids, topic[start:end])
        and _is_in_range(topic[start:end], kind)
        and re.fullmatch(after, topic[end:], flags=re.DOTALL)
    }


def _is_in_range(name: str, kind: str) -> bool:
    bits = {"integer": 31, "bigint": 63}.get(kind)
    return bits is None or -(2**bits) <= int(name) < 2**bits


def _expression(part: str) -> str:
    places = {"*": ".*", "{epoch}": "[0-9]+"}
    return "".join(places.get(p) or re.escape(p) for p in re.split(r"(\*|\{epoch\})", part))


def is_true(said: Ambiguity, kind: str) -> bool:
    """What it gives as an example is one."""
    one, other = (name.split('"')[1] for name in said.meanings)
    first, second = (readings(said.topic, pattern, kind) for pattern in said.patterns)
    if kind == "uuid":
        one, other = one.lower(), other.lower()
    return one != other and one in first and other in second


LITERALS = st.text("a1-:", min_size=0, max_size=3)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """As mirror.toml lets them through: no two places side by side."""
    before = draw(st.sampled_from(["", "*a", "*-", "*:", "*1"])) or draw(LITERALS)
    after = draw(LITERALS)
    place = draw(st.sampled_from(["", "*", "{epoch}"]))
    if place and not after:
        after = draw(st.sampled_from("a1-:"))
    tail = draw(st.sampled_from(["", "", "a", "1", ":a"])) if place else ""
    return f"{before}{{id}}{after}{place}{tail}"


def topics(letters: str, longest: int) -> Iterator[str]:
    for length in range(1, longest + 1):
        for chosen in itertools.product(letters, repeat=length):
            yield "".join(chosen)


@settings(deadline=None)
@given(st.lists(patterns(), min_size=1, max_size=2, unique=True), st.sampled_from(["text", "integer"]))
@example(["{id}:a", "a:{id}"], "text")  # one topic fits both, a:a, and it means one trip
@example(["{id}-a", "a-{id}"], "text")
@example(["1{id}", "{id}1"], "integer")
def test_what_is_refused_is_ambiguous_and_what_is_let_in_is_not(given_patterns: list[str], kind: str) -> None:
    said = found(*given_patterns, kind=kind)
    if said is not None:
        assert is_true(said, kind), said
        return
    for topic in topics("a1-:", 5):
        ids = set().union(*(readings(topic, pattern, kind) for pattern in given_patterns))
        assert len(ids) < 2, (topic, ids)


@given(patterns(), st.text("a1-:", max_size=8), st.sampled_from(["text", "integer", "uuid"]))
def test_what_the_policies_read_is_one_of_the_readings(given_pattern: str, topic: str, kind: str) -> None:
    """They take the first trip that a regular expression finds, or none: never one that was not weighed here."""
    match = re.search(pattern(given_pattern, kind), topic, flags=re.DOTALL)
    meant = readings(topic, given_pattern, kind)
    if match is not None and (kind == "text" or (kind == "integer" and re.fullmatch(INTEGER, match[1]))):
        assert match[1] in meant


@settings(deadline=None)
@given(LITERALS, LITERALS, patterns())
def test_a_users_own_channel_is_no_trips(before: str, after: str, given_pattern: str) -> None:
    assume(found(given_pattern) is None)
    said = found(given_pattern, announce=f"{before}{{sub}}{after}")
    meant = re.compile(f"{re.escape(before)}.+{re.escape(after)}", flags=re.DOTALL)
    if said is None:
        assert not any(meant.fullmatch(t) and readings(t, given_pattern, "text") for t in topics("a1-:", 5))
    else:
        assert meant.fullmatch(said.topic)
        assert readings(said.topic, given_pattern, "text")


@pytest.mark.parametrize(
    ("given_topics", "announce", "said"),
    [
        (["trip-{id}", "trip-messages-{id}"], None, ("trip-messages-a", 'trip "messages-a"', 'trip "a"')),
        (["trip:{id}", "trip:{id}-chat"], None, ("trip:a-chat", 'trip "a-chat"', 'trip "a"')),
        (["trip-{id}-{epoch}", "trip-{id}"], None, ("trip-a-0", 'trip "a"', 'trip "a-0"')),
        (["*-{id}"], None, ("--a", 'trip "a"', 'trip "-a"')),
        (["trip-{id}"], "trip-user-{sub}", ("trip-user-a", 'user "a"', 'trip "user-a"')),
        (["user:{id}"], "user:{sub}", ("user:a", 'user "a"', 'trip "a"')),
    ],
)  # fmt: skip
def test_it_is_one_sentence_with_an_example_and_the_cure(
    given_topics: list[str], announce: str | None, said: tuple[str, str, str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_ambiguous(AccessOptions(topics=tuple(given_topics), announce=announce), "text")
    named = " and ".join(f'"{name}"' for name in ([announce] if announce else []) + given_topics)
    topic, one, other = said
    verb = "is" if " and " not in named else "are"
    assert (
        refused.value.message == f'[access] {named} {verb} ambiguous: "{topic}" is the channel of {one} and of {other}'
    )
    assert '":", which no id has: topics = ["trip:{id}", "trip-messages:{id}"]' in refused.value.hint


@pytest.mark.parametrize("kind", ["uuid", "integer", "bigint", "text"])
@pytest.mark.parametrize(
    ("given_topics", "announce"),
    [
        (["trip:{id}"], None),
        (["trip:{id}"], "user:{sub}"),
        (["trip:{id}", "trip:{id}:*", "trip-messages-{id}"], "user:{sub}"),
        (["room:{id}", "room:{id}:*"], None),
        (["trip:{id}:e{epoch}", "trip:{id}:*", "trip:{id}"], "user:{sub}"),
        (["trip:{id}", "trip-messages:{id}"], "user:{sub}"),
        (["{id}:*"], None),
        (["{id}-{epoch}"], None),
        (["*:{id}"], None),
        ([], "user:{sub}"),
    ],
)
def test_what_the_readme_shows_is_accepted_with_every_type_of_id(
    kind: str, given_topics: list[str], announce: str | None
) -> None:
    assert found(*given_topics, kind=kind, announce=announce) is None


@pytest.mark.parametrize(
    ("given_topics", "kind", "is_ambiguous"),
    [
        (["trip-{id}", "trip-messages-{id}"], "uuid", False),
        (["trip-{id}", "trip-messages-{id}"], "bigint", False),
        (["trip-{id}", "trip-1{id}"], "integer", True),
        (["trip-{id}", "trip-12345678901{id}"], "integer", False),  # that is no integer, whatever follows
        (["trip-{id}", "trip-12345678901{id}"], "bigint", True),
        (["trip-{id}", "trip--{id}"], "integer", True),
        (["trip-{id}", "trip-0{id}"], "integer", False),  # nor is it written with a zero before it
        (["{id}-*", "*-{id}"], "uuid", True),
        (["{id}0", "{id}"], "uuid", False),
        (["{id}", f"{ROME[:-1]}{{id}}"], "integer", False),
        (["{id}*".replace("*", ":*"), "*:{id}"], "text", True),
    ],
)
def test_the_type_of_the_ids_decides(given_topics: list[str], kind: str, is_ambiguous: bool) -> None:
    said = found(*given_topics, kind=kind)
    assert (said is not None) is is_ambiguous, said
    assert said is None or is_true(said, kind)


def test_a_uuid_in_capitals_is_the_same_trip() -> None:
    """Only literals can force it: the head of the one id and the tail of the other are spelt in the patterns."""
    head = "AAAAAAAA-0000-0000-0000-0000"  # 28 characters; a uuid goes on with 8 more
    assert found(f"{{id}}:{head}", f"{head.lower()}:{{id}}", kind="uuid") is None
    assert found("{id}:A", "A:{id}", kind="text") is None
    assert found("{id}:A", "a:{id}", kind="text") is not None


def test_many_long_patterns_are_decided_at_once() -> None:
    given_topics = [f"{'x' * 90}{n}:{{id}}:*{'y' * 90}" for n in range(8)]
    assert found(*given_topics, kind="bigint") is None
