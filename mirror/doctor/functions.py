"""Functions that read mirrored rows past the policies, called as each stranger with a trip for every argument that can
be one: an answer that says anything is a hole. Only what cannot change anything is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mirror.doctor.finding import Finding
from mirror.doctor.policies import Row, quoted
from mirror.doctor.strangers import Answer, Question, Scene, Stranger, Try, found, named

ARGUMENTS_MAX = 4
_EMPTY = "('null', '[]', '{}', '\"\"')"


def question(scene: Scene, function: Row) -> Question:
    kinds = function["arguments"]
    query = _call(scene, function["name"], kinds) if _can_be_given(kinds) else ""
    tries = [Try(caller, query) for caller in scene.callers if query and caller.role in function["roles"]]
    return Question(function["signature"], tries, partial(_judge, function))


def _can_be_given(kinds: Sequence[str]) -> bool:
    return len(kinds) <= ARGUMENTS_MAX and not any(kind.startswith("any") for kind in kinds)


def _call(scene: Scene, name: str, kinds: Sequence[str]) -> str:
    given = ", ".join(_argument(scene, kind) for kind in kinds)
    return f"select coalesce(bool_or(jsonb_strip_nulls(to_jsonb(r)) not in {_EMPTY}), false) from {name}({given}) as r"


def _argument(scene: Scene, kind: str) -> str:
    is_id = kind in (scene.trip_type, "text", "character varying")
    return f"{quoted(scene.trip) if is_id else 'null'}::{kind}"


def _judge(function: Row, said: Sequence[tuple[Stranger, Answer]]) -> Iterator[Finding]:
    readers = [caller for caller, answer in said if answer is True]
    if readers:
        name = function["signature"]
        sentence = f"strangers are answered by {name}, which reads mirrored rows: {named(readers)}"
        cure = f"revoke execute on function {name} from public, {', '.join(function['roles'])};"
        yield found("error", sentence, cure)
