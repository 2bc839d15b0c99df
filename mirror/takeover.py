"""Before the loop turns: do the source's installation, the mapping and the target fit each other, and is the target
where the source believes it to be? What does not fit, a person must put right; what is not there is marked as dirty."""

from __future__ import annotations

import json
import logging
from typing import Any

from mirror.errors import ConfigError, Incompatible, NotInstalled, Refused
from mirror.mapping import Mapping
from mirror.source.capture import VERSION
from mirror.source.primary import Primary
from mirror.target.access import told
from mirror.target.replies import Claimed
from mirror.target.target import Target
from mirror.translation import UNDEFINED

log = logging.getLogger(__name__)

Types = dict[str, str]  # of a side's keys
LEASES_LOST = 3
COLLAPSE_ENTRIES = 2_000_000  # more is not worth replaying key by key


async def check_install(source: Primary, mapping: Mapping) -> Types:
    """Is the source installed for this daemon? The types of its keys."""
    version, document = await source.installed()
    if version != VERSION:
        raise Incompatible(
            f"the source's schema is version {version}, this daemon needs {VERSION}",
            hint="Run `mirror install source`.",
        )
    if document["mapping"] != mapping.source_part():
        raise Incompatible(
            "mirror.toml is not the mapping that the source was installed with",
            hint="Run `mirror install source` to bring it in.",
        )
    types: Types = document["types"]
    return types


async def claim(source: Primary, target: Target, identity: dict[str, Any], types: Types, mapping: Mapping) -> Claimed:
    """The target is ours from here on; what it lacks is in the outbox, and so is what has to be compared: while a whole
    table is marked, no position is sent. In a new life of the primary that is everything, for a position of an earlier
    life says nothing about it."""
    life = await source.begin_life()
    claimed = await _claimed(target, identity | {"life": life, "crash_loses_s": crash_loses_s(source, life)})
    if claimed.types != types:
        raise Incompatible(f"the target's keys are {claimed.types}, the source's are {types}", hint=target.install_hint)
    _check_told(claimed.told, told(mapping), target.install_hint)
    if await source.collapse(COLLAPSE_ENTRIES):
        log.warning("the outbox grew too large while no daemon ran: the tables are compared instead")
    is_behind = claimed.compared and await source.is_behind(claimed.snapshot)
    if is_behind:
        log.warning("the target is behind what it was told: restored, or another one? All tables are compared")
    if claimed.tampered:
        log.warning("mirror.state was changed by others than the mirror: all tables are compared")
    elif claimed.primed and not claimed.compared:
        log.warning("the primary crashed or was replaced: all tables are compared", extra={"life": claimed.life})
    if is_behind or not claimed.compared or not claimed.primed:
        await source.mark_unmarked()
    if claimed.channels is None:
        log.warning("the target cannot tell whether private channels are open: run `mirror install target`")
    return claimed


def crash_loses_s(source: Primary, life: dict[str, Any]) -> float:
    """How much a crash can take from what the target has: it remembers a renewal of the lead that is at most a lease
    old, and that became durable within a second. Three of them, because a fail-over loses a little more. (The lease may
    have been another daemon's, with other settings.)"""
    return LEASES_LOST * max(source.lease.seconds, float(life["lease_s"] or 0.0))


def _check_told(there: dict[str, Any] | None, here: dict[str, Any], hint: str) -> None:
    """Was the target installed with this mirror.toml? What one of the two releases does not know is not compared."""
    changed = [name for name, value in here.items() if there is not None and there.get(name, value) != value]
    if there is not None and "callers" in changed:
        raise Incompatible(
            f"the target finds callers by {there['callers']}, mirror.toml wants them found by {here['callers']}",
            hint=hint,
        )
    if changed:
        log.warning("the target was installed with another %s than mirror.toml says: %s", ", ".join(changed), hint)


async def _claimed(target: Target, identity: dict[str, Any]) -> Claimed:
    try:
        if "position_life" not in await target.status():
            raise ConfigError("the target was installed by an older release", hint=target.install_hint)
        return await target.claim(json.dumps(identity))
    except Refused as error:
        if error.sqlstate not in UNDEFINED:
            raise
        reason = error.message.removeprefix("target: ")
        raise NotInstalled(f"the mirror is not installed in the target: {reason}", hint=target.install_hint) from error
