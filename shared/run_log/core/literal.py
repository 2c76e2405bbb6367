"""Text that may be anybody's, as a line that shows all of it and commands no terminal."""

from __future__ import annotations

from typing import Final

_UNSEEN: Final = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0),
            *range(0xFE00, 0xFE0E),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""What counts as printable and shows nothing: Unicode's Default_Ignorable_Code_Point, but for the two that
choose between a character's text and its picture
(https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point)."""


def literal(text: str, encoding: str = "utf-8") -> str:
    r"""Return *text* on one line, with the escape in the place of whatever does not show itself.

    That is control characters, line and paragraph separators, what changes the direction or has no width,
    tags, and lone surrogates. A joiner is no exception: an emoji of several is shown as its parts with
    ``\u200d`` between.

    Args:
        text: Anybody's.
        encoding: Characters that it lacks are shown as escapes too.
    """
    if not text.isprintable() or not (text.isascii() or _UNSEEN.isdisjoint(text)):
        text = "".join(
            letter if letter.isprintable() and letter not in _UNSEEN else ascii(letter)[1:-1]
            for letter in text
        )
    return text.encode(encoding, "backslashreplace").decode(encoding)
