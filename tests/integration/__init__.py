"""One part of the mirror against real servers."""
