"""Known vulnerabilities of everything in the lock: python -m tests.audit (make audit).

pip-audit asks PyPI about each release. What PyPI does not answer for it leaves out, and calls the rest fine; an audit
that saw nothing must not say that there is nothing. Exit 0: none is known. 1: these are. 3: could not tell.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent / "requirements.lock"  # holds requirements.lock and deploy/build.lock, too
AUDIT_TIMEOUT_S = 300


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit code and what to say, for what pip-audit found."""
    seen = report["dependencies"]
    unseen = [one["name"] for one in seen if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {known['id']}, cured in {', '.join(known['fix_versions']) or 'none yet'}"
        for one in seen
        for known in one.get("vulns", [])
    ]
    if unseen:
        found.append(f"Could not tell for {len(unseen)} of {len(seen)} packages: PyPI did not answer for {unseen[0]}.")
    if found:
        return 3 if len(found) == 1 and unseen else 1, found
    return 0, [f"No known vulnerability in {len(seen)} packages."]


def ask() -> dict[str, Any] | str:
    """pip-audit's report, or why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            check=False, capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S,
        )  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"no answer within {AUDIT_TIMEOUT_S} s"
    except json.JSONDecodeError:
        return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    return report


def main() -> int:
    answer = ask()
    code, lines = (3, [f"Could not tell: {answer}"]) if isinstance(answer, str) else verdict(answer)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
