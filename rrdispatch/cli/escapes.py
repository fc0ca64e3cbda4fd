"""What a program printed, shown on a terminal: colours stay, whatever else steers it is spelt out.

A log holds what strangers sent (a path, a user agent); a terminal obeys it: it sets titles, moves
over lines above, answers as if somebody typed. Must not be used for files and pipes.
"""

from __future__ import annotations

import re

# C0 but the tab, DEL and C1; marks that turn the direction of text round, so that it reads
# otherwise than it is; and bytes that were no UTF-8 (surrogateescape).
_UNSAFE = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\udc80-\udcff]"
_COLOUR = "\x1b\\[[0-9;]{0,40}m"
_STEERS = re.compile(f"({_COLOUR})|{_UNSAFE}")
_HIDES = re.compile(r"(?:^|;)0*8(?:;|$)")
_TAKES_NUMBERS = re.compile(r"(?:^|;)0*[345]8;(?:5;[0-9]*|2;[0-9]*;[0-9]*;[0-9]*)")
RESET = "\x1b[0m"


def harmless(data: bytes, colour: bool = True) -> str:
    """One line. Its colours end with it, so that it paints no other."""
    text = data.removesuffix(b"\r").decode(errors="surrogateescape")
    coloured = False

    def spell(found: re.Match[str]) -> str:
        nonlocal coloured
        if found[1] and not _hides(found[1]):
            coloured = coloured or colour
            return found[1] if colour else ""
        return "".join(_spelt(character) for character in found[0])

    shown = _STEERS.sub(spell, text)
    return shown + RESET if coloured else shown


def _hides(sequence: str) -> bool:
    """SGR 8 makes text invisible; in 38;5;8 it is a colour's number."""
    return bool(_HIDES.search(_TAKES_NUMBERS.sub("", sequence[2:-1])))


def _spelt(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    elif 0x20 <= code < 0x7F:
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
