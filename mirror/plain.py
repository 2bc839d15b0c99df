"""What a terminal may be told: words of others, made harmless."""

from __future__ import annotations


def plain(text: str) -> str:
    """What comes out of a database may be anything, and a terminal obeys it: ESC clears the screen, the end of a line
    forges one, marks of writing direction (U+202E) turn words around. What is not simply shown is written out, as
    \\x1b, \\n and \\u202e are here."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
