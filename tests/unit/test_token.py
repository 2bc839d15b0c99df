"""Read-your-writes is a question about sets of transactions; and whatever is sent as a token, the answer is words."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.token import LENGTH_MAX, Garbage, Life, Snapshot, Token, read_life, read_snapshot, read_token

INSTALL = "50f1322b-cf85-4e4c-888b-baa37759249a"
HIGHEST = 40


@st.composite
def snapshots(draw: st.DrawFn) -> str:
    xmin = draw(st.integers(1, 30))
    xmax = draw(st.integers(xmin, HIGHEST - 1))
    xip = sorted(draw(st.sets(st.integers(xmin, xmax - 1)))) if xmax > xmin else []
    return f"{xmin}:{xmax}:{','.join(map(str, xip))}"


def snapshot(text: str) -> Snapshot:
    read = read_snapshot(text)
    assert read is not None, text
    return read


def token(text: str) -> Token:
    read = read_token(text)
    assert isinstance(read, Token), text
    return read


def seen(by: Snapshot) -> set[int]:
    return {xid for xid in range(1, HIGHEST + 1) if by.sees(xid)}


@given(snapshots(), snapshots(), st.none() | st.integers(1, HIGHEST))
def test_a_snapshot_has_a_token_when_it_sees_all_that_the_token_saw(here: str, there: str, own: int | None) -> None:
    mirror, asked = snapshot(here), token(f"{INSTALL}/{own or '-'}/{there}")
    wanted = seen(asked.seen) | ({own} if own else set())
    missing = wanted - seen(mirror)
    lacks = asked.lacks(mirror)
    assert lacks in missing if missing else lacks is None


def test_a_later_id_that_has_ended_does_not_stand_for_an_earlier_one_that_has_not() -> None:
    mirror = snapshot("10:20:10")
    assert token(f"{INSTALL}/19/19:19:").lacks(mirror) == 10
    assert token(f"{INSTALL}/19/10:19:10").lacks(mirror) is None
    assert token(f"{INSTALL}/10/10:19:10").lacks(mirror) == 10


@given(st.text())
def test_garbage_has_a_reason_and_never_raises(text: str) -> None:
    assert isinstance(read_token(text), Garbage)
    assert read_snapshot(text) is None


@given(st.from_regex(r"[0-9a-f-]{0,3}/[0-9-]{0,3}/[0-9]{0,3}:[0-9]{0,3}:([0-9]{1,2},?){0,3}", fullmatch=True))
def test_what_nearly_is_a_token_is_one_or_has_a_reason(text: str) -> None:
    read = read_token(text)
    assert read.reason if isinstance(read, Garbage) else read.seen.xmin <= read.seen.xmax


def test_what_postgres_would_not_write_is_refused() -> None:
    for text in (
        "20:10:", "10:20:9", "10:20:20", "10:20:12,11", "10:20:11,11", "0:1:", "1:1", "1:1:,", "1:2:1,", " 1:1:",
        "1:1:\n", "\uff11:1:", "01:2:", f"1:{2**64}:", "-1:1:",
    ):  # fmt: skip
        assert read_snapshot(text) is None, text
    for text in (f"{INSTALL}/0/1:1:", f"{INSTALL}/{2**64}/1:1:", f"{INSTALL}//1:1:", "/-/1:1:", f"{INSTALL}/-/1:1:/"):
        assert isinstance(read_token(text), Garbage), text


def test_the_life_of_a_token() -> None:
    assert token(f"{INSTALL}/-/1:1:").life is None
    assert token(f"{INSTALL}/5.1f3a9c2e/7/1:1:").life == Life(5, "1f3a9c2e")
    assert token(f"{INSTALL}/6/7/1:1:").life == Life(6, None)
    for life in ("0", "0.ab", "5.", ".ab", "5.AB", "5.a/b", "-", "9" * 19, "5.1f3a9c2e.1", " 5"):
        assert isinstance(read_token(f"{INSTALL}/{life}/7/1:1:"), Garbage), life
    assert [read_life(text) for text in (None, "", "5.ab")] == [None, None, Life(5, "ab")]


def test_a_token_is_bounded() -> None:
    xip = ",".join(map(str, range(10, 10 + LENGTH_MAX)))
    assert isinstance(read_token(f"{INSTALL}/-/10:{10 + LENGTH_MAX}:{xip}"), Garbage)
