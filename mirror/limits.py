"""How long the daemon waits for a side that says nothing, in one place.

Whatever falls silent (the leader, the source, the target), the mirror works again within 15 s, with default settings:
 - a leader that stopped, or whose network is gone: its lease, LEASE_MIN_S, and a standby's next look (up to 1.5 s);
 - a conversation that died while new ones work: ANSWER_S of the target, or QUIET_S, a look each LOOK_S and HANDED_S of
   the source; then a new session;
 - a network that is back: CONNECT_S for an attempt that is under way, and the longest pause between two (7.5 s).
The kernel finds most of them before that (KEEPALIVE): but behind a proxy it only knows that the proxy is there.
"""

from __future__ import annotations

from typing import Any

CONNECT_S = 5  # a compute that wakes up goes on doing so; the next attempt meets it awake
ASK_S = 10  # the same for a person's commands, which try once

# Of the target: silence, not the whole call, which may be long on a slow network.
STATEMENT_S = 8.0  # what mirror_apply may take (schema/target/api.sql; what hosted Supabase gives a statement)
ANSWER_S = STATEMENT_S + 3.0

# Of the source, where a statement may take a minute. A session that has said nothing for QUIET_S is asked about over
# another one, every LOOK_S: it is dead when the server has had nothing to do for it for HANDED_S.
QUIET_S, LOOK_S, HANDED_S = 4.0, 1.0, 2.0

LEASE_MIN_S = 12.0

KEEPALIVE: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
