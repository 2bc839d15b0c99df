"""`python -m mirror`, the same as `mirror`."""

from __future__ import annotations

import sys

from mirror.cli import main  # the console script is `mirror.__main__:main`

if __name__ == "__main__":
    sys.exit(main())
