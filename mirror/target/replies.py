"""What the target's functions reply, as values. A reply is taken apart here and nowhere else: what answered may be the
login page of a network, a proxy that cut a document short, or the functions of another release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, TypeAdapter, ValidationError

from mirror.errors import UnknownOutcome

HINT = "Check SUPABASE_URL, or MIRROR_TARGET_URL: another program answers there, or another release of the mirror."
Text = str | None


def _has(*names: str) -> AfterValidator:
    def checked(document: Mapping[str, Any]) -> Mapping[str, Any]:
        missing = [name for name in names if name not in document]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return document

    return AfterValidator(checked)


Document = dict[str, Any]
Proof = Annotated[Document, _has("at", "reason", "snapshot", "tables")]
Walk = Annotated[Document, _has("table", "trip", "since", "after", "rows")]
Check = Annotated[Document, _has("n", "equal")]
Explained = Annotated[Document, _has("missing", "extra", "changed", "parked", "refused", "rows")]
Insecurity = Annotated[Document, _has("rule", "finding", "cure")]
Parked = Annotated[Document, _has("tbl", "k1", "k2", "reason", "since", "tries", "retry_at")]
Due = Annotated[Document, _has("table", "k1", "k2")]
Refused = Annotated[Document, _has("n", "rows")]


@dataclass(frozen=True, slots=True)
class Reply:
    clock: AwareDatetime


@dataclass(frozen=True, slots=True)
class Claimed(Reply):
    version: int
    epoch: int
    types: dict[str, str]
    primed: bool
    snapshot: Text
    empty: tuple[str, ...]
    walks: tuple[Walk, ...]
    proof: Proof | None
    channels: Text = None  # None: installed by a version that cannot tell
    life: Text = None  # of the source, as `number.name`
    compared: bool = True  # in this life: the position is of it
    tampered: bool = False  # the state was not what the mirror had written, and begins anew
    doubts: tuple[Document, ...] = ()  # of the daemon that led before
    told: Document | None = None  # what of mirror.toml it was installed with


@dataclass(frozen=True, slots=True)
class Opened(Reply):
    channels: str
    reason: Text


@dataclass(frozen=True, slots=True)
class Compared(Reply):
    check: Check | None
    explained: tuple[Explained, ...] | None


@dataclass(frozen=True, slots=True)
class Applied(Compared):
    counts: dict[str, dict[str, int]]
    parked: dict[str, int] | None  # None: as before
    due: tuple[Due, ...]
    refused: dict[str, Refused] = field(default_factory=dict)  # not told by an older target


@dataclass(frozen=True, slots=True)
class Insecurities(Reply):
    insecurities: tuple[Insecurity, ...]


@dataclass(frozen=True, slots=True)
class _Status(Reply):
    """What is read of it. The whole is passed on, for `mirror status --json`."""

    version: int
    epoch: int
    batch: int
    types: dict[str, str]
    source: Document | None
    snapshot: Text
    primed_at: Text
    staleness_seconds: float | None
    parked: tuple[Parked, ...]
    braked: dict[str, Document]
    proof: Proof | None


R = TypeVar("R", bound=Reply)
_reader = cache(TypeAdapter)  # made when it is needed: most commands read no reply


def parse(kind: type[R], function: str, reply: object) -> R:
    try:
        read: R = _reader(kind).validate_python(reply)  # type: ignore[arg-type]  # mypy takes the hash of an instance
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = next((str(part) for part in first["loc"] if isinstance(part, str)), "")
        # The cause would quote what came: keys of rows, or a page that is not ours to show.
        raise not_ours(function, field) from None
    return read


def not_ours(function: str, field: str = "") -> UnknownOutcome:
    about = f": {field} is not as it should be" if field.isidentifier() else ""
    return UnknownOutcome("target", f"no reply to {function}, but something else{about}", hint=HINT)


def status(reply: object) -> Document:
    parse(_Status, "mirror_status", reply)
    return reply  # type: ignore[return-value]  # it is one, or that has raised
