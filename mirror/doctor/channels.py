"""Does a stranger get into a trip's channel? The doctor asks as Realtime asks: to receive, probe rows are there and the
caller looks for them; to send, the caller inserts one for each extension. All of it is rolled back, so nothing is ever
sent. Like each check of Realtime's own, it leaves a few dead rows behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import psycopg

from mirror.doctor.catalog import Connection, rolled_back
from mirror.doctor.finding import Finding, Verdict
from mirror.doctor.policies import Row, drops, letting_in, of_table, on_made_up_row, one_by_one, quoted, raising, rows
from mirror.doctor.strangers import DONE, Answer, Scene, Stranger, Try, answers, named
from mirror.mapping import AccessOptions
from mirror.target.access import epochs_first

CHECK = "strangers on channels"
STRANGE = "mirror doctor"  # no trip's, and nothing that a policy expects
TOPICS_MAX = 4
EXTENSIONS = ("broadcast", "presence")
_OID = "select c.oid from pg_class as c where c.oid = mirror.messages() and c.relrowsecurity"
_EPOCH = "select mirror.epoch_of(%(trip)s) as epoch"
_PROBE = "insert into realtime.messages (topic, extension) values (%(topic)s, 'broadcast'), (%(topic)s, 'presence')"
_LOOK = "select exists (select from realtime.messages where topic = {topic} and extension = '{extension}')"
_SEND = (
    "insert into realtime.messages (topic, extension, inserted_at, updated_at) "
    "values ({topic}, '{extension}', now(), now())"
)
REFUSED = "42501"
LOOK = "Look at the policies of realtime.messages: one of them lets strangers in."
CALM = "Let its policies ask public.is_topic_member(realtime.topic()), which never raises."


def examine(connection: Connection, scene: Scene, access: AccessOptions) -> Iterator[Finding]:
    """Where row level security is off, or the table is missing, other checks say so."""
    found = rows(connection, _OID)
    if not found:
        return
    holes: list[Finding] = []
    try:
        for topic in (*_topics(connection, scene, access), STRANGE):
            with rolled_back(connection, read_only=False):
                holes += _topic(connection, scene, topic, found[0]["oid"], is_trips=topic != STRANGE)
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        reason = f"realtime.messages could not be tried: {error.diag.message_primary}"
        holes.append(
            _said("warning", reason, "If it has no partition for today, join a channel once: Realtime makes it then.")
        )
    unique: dict[tuple[str, str], Finding] = {}
    for finding in holes:
        unique.setdefault((finding.verdict, finding.cure), finding)
    yield from unique.values()
    if not holes:
        yield _said("ok", "no stranger receives or sends on a trip's channel, and no policy of channels raises")


def _topics(connection: Connection, scene: Scene, access: AccessOptions) -> list[str]:
    (row,) = rows(connection, _EPOCH, trip=scene.trip)
    patterns = epochs_first(access.topics)[:TOPICS_MAX]
    return [p.replace("{id}", scene.trip).replace("{epoch}", row["epoch"]).replace("*", "any") for p in patterns]


def _topic(connection: Connection, scene: Scene, topic: str, oid: int, *, is_trips: bool) -> Iterator[Finding]:
    connection.execute(_PROBE, {"topic": topic})
    callers = [*scene.callers, *([scene.outsider] if scene.outsider else [])]
    for verb, command, query in (("receive", "r", _LOOK), ("send", "a", _SEND)):
        tries = [Try(c, query.format(topic=quoted(topic), extension=e), topic) for c in callers for e in EXTENSIONS]
        said = list(zip([one.caller for one in tries], answers(connection, tries), strict=True))
        policies = of_table(connection, oid, command)
        let_in = list(dict.fromkeys(caller for caller, answer in said if answer in (True, DONE)))
        if let_in and is_trips:
            cure = drops(letting_in(_one_by_one(connection, policies, let_in[0], topic)), "realtime.messages")
            yield _said("error", f"strangers may {verb} on a trip's channel: {named(let_in)}", cure or LOOK)
        # To be refused an insert is no error of a policy.
        raised = [(c, a) for c, a in said if isinstance(a, str) and a != DONE and (a, command) != (REFUSED, "a")]
        if raised:
            names = raising(_one_by_one(connection, policies, raised[0][0], topic))
            yield _raised(scene, raised, names, is_trips=is_trips)


def _one_by_one(
    connection: Connection, policies: Sequence[Row], caller: Stranger, topic: str
) -> Iterator[tuple[Row, Answer]]:
    return one_by_one(connection, policies, caller, [_on_probe(topic, extension) for extension in EXTENSIONS], topic)


def _on_probe(topic: str, extension: str) -> Callable[[str], str]:
    row = {"topic": topic, "extension": extension, "private": "false"}
    return lambda expression: on_made_up_row("realtime.messages", "messages", expression, row)


def _raised(
    scene: Scene, raised: Sequence[tuple[Stranger, Answer]], names: Sequence[str], *, is_trips: bool
) -> Finding:
    """An error ends the check of all policies: whom another policy would let in is refused, too."""
    callers = list(dict.fromkeys(caller for caller, _ in raised))
    harms = is_trips and any(scene.harms(caller) for caller in callers)
    where = "a trip's channel" if is_trips else "a channel that is no trip's"
    effect = "Realtime then refuses the channel, whatever the other policies say"
    sentence = (
        f"a policy of realtime.messages raises (SQLSTATE {raised[0][1]}) on {where} for {named(callers)}: {effect}"
    )
    return _said("error" if harms else "warning", sentence, drops(names, "realtime.messages") or CALM)


def _said(verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", CHECK, verdict, sentence, cure)
