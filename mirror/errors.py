"""Every error of the mirror, in one place.

    MirrorError                 one sentence for a person, and a cure
    ├── ConfigError             usage or configuration is wrong; a person must act      exit 2
    │   ├── Incompatible        the two sides, or the mapping, do not fit               exit 2
    │   └── NotInstalled        a side is not there; who has led waits for it       exit 2
    ├── Unreachable             a side does not answer; try again later                 exit 3
    │   └── UnknownOutcome      an apply was sent and no reply came: new fence, new snapshot
    ├── Superseded              another daemon holds a newer epoch: step aside
    └── Refused                 a side answered no: a person should look; tried again   exit 1

Three reactions only: try again (Unreachable, Refused), step aside (Superseded), tell a person (ConfigError).
Messages never carry a URL, a password or a key.
"""

from __future__ import annotations

LOCKED = "PT423"  # a table in the target, named by `about`, is locked by others: its rows wait, the others go on
TOO_LARGE = "413"  # an HTTP status where Refused has an SQLSTATE: a gateway takes no batch of that size


class MirrorError(Exception):
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.hint}".rstrip() if self.hint else self.message


class ConfigError(MirrorError):
    exit_code = 2


class Incompatible(ConfigError):
    pass


class NotInstalled(ConfigError):
    """A side is not there (yet)."""


class Unreachable(MirrorError):
    """`retry_after_s`: for so long the server asks to be left alone."""

    exit_code = 3

    def __init__(self, side: str, message: str, *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(f"{side}: {message}", hint=hint)
        self.side = side
        self.retry_after_s = retry_after_s


class UnknownOutcome(Unreachable):
    pass


class Superseded(MirrorError):
    pass


class Refused(MirrorError):
    """`about`: what our own functions say that it is about."""

    def __init__(
        self, side: str, message: str, *, hint: str = "", sqlstate: str | None = None, about: str = ""
    ) -> None:
        super().__init__(f"{side}: {message}", hint=hint)
        self.side = side
        self.sqlstate = sqlstate
        self.about = about
