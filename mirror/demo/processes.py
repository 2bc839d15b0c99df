"""The operating system's view of one PostgreSQL server: a postmaster and its children.

Standard library only, on Linux and macOS. The watchdog is what keeps servers from outliving the Python process that
started them, even when that one is killed with -9.
"""

import os
import signal
import subprocess
from pathlib import Path

# The shell waits for a line or for the end of its input. The end comes by itself when the process that holds the
# other end is gone, however it went; a line means that the server was stopped in an orderly way.
WATCHDOG = 'read _ || { kill -CONT "$1"; kill -"$3" "$1"; rm -rf "$2"; }'


def watchdog(pid: int, directory: Path, end: signal.Signals = signal.SIGQUIT) -> subprocess.Popen[bytes]:
    """Ends that process as soon as this Python process no longer exists, and tidies up. By default as one ends a
    postmaster, with its children. Others need a signal that cannot be ignored: a script's job in the background, and
    all that it starts, ignores SIGQUIT."""
    return subprocess.Popen(
        ["sh", "-c", WATCHDOG, "watchdog", str(pid), directory, end.name.removeprefix("SIG")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal goes to the whole group; the watchdog must survive it
    )


def dismiss(dog: subprocess.Popen[bytes]) -> None:
    dog.communicate(b"\n")


def freeze(postmaster: int) -> list[int]:
    """Stops all processes of the server where they are, and returns their pids, the postmaster first."""
    os.kill(postmaster, signal.SIGSTOP)  # first: a stopped postmaster starts no further child
    pids = [postmaster, *_children(postmaster)]
    for pid in pids[1:]:
        send(pid, signal.SIGSTOP)
    return pids


def thaw(postmaster: int) -> None:
    for pid in (*_children(postmaster), postmaster):
        send(pid, signal.SIGCONT)


def kill_all(postmaster: int) -> None:
    """Like a power cut: a backend in the middle of a query would survive its postmaster for a while."""
    for pid in freeze(postmaster):
        send(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # a child that ended by itself in between is what every caller wants


def _children(pid: int) -> list[int]:
    return [child for child, parent in _processes() if parent == pid]


def _processes() -> list[tuple[int, int]]:
    """Pid and parent of every process: from /proc, since slim containers have no `ps`; macOS has `ps` only."""
    proc = Path("/proc")
    if proc.joinpath("self").exists():
        return [found for entry in proc.iterdir() if entry.name.isdigit() and (found := _from_proc(entry))]
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True)
    return [(int(pid), int(parent)) for pid, parent in map(str.split, listed.stdout.splitlines())]


def _from_proc(entry: Path) -> tuple[int, int] | None:
    try:
        text = entry.joinpath("stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while we were looking
    return int(entry.name), int(text.rpartition(")")[2].split()[1])
