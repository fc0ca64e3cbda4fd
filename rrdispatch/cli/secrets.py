"""What looks like a secret, by its name or by a password in an address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MASK = "********"
_NAME = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|PWD$|CREDENTIAL|API_?KEY|PRIVATE|ACCESS_?KEY|AUTH|COOKIE|DSN|"
    r"(^|_)KEY$|(^|[_-])PASS($|[_-])",
    re.IGNORECASE,
)
# A password may have @ and / in it, though it should not: up to the last @. But host:port/ is none.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/]*):(?![0-9]{1,5}/)\S+@", re.IGNORECASE)
_HARMLESS = frozenset(("PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"))


def masked(values: Mapping[str, str]) -> dict[str, str]:
    return {key: mask(key, value) for key, value in values.items()}


def mask(key: str, value: str) -> str:
    if value and key not in _HARMLESS and _NAME.search(key):
        return MASK
    return without_password(value)


def masked_words(words: Sequence[str]) -> list[str]:
    """Of a command line: ``--password=x``, ``--password x``, ``PASSWORD=x``, addresses."""
    found: list[str] = []
    secret = False  # the word before is an option whose value this is
    for word in words:
        name, equals, value = word.partition("=")
        if secret and not word.startswith("-"):
            found.append(MASK)
            secret = False
            continue
        telling = _is_secret(name)
        found.append(f"{name}={MASK}" if telling and equals and value else without_password(word))
        secret = telling and not equals and word.startswith("-")
    return found


def masked_words_of(line: str) -> str:
    """Of a command line in one piece."""
    return " ".join(masked_words(line.split(" ")))


def _is_secret(name: str) -> bool:
    """``--password-file`` is followed by a path, ``--no-auth`` by nothing."""
    name = name.lstrip("-")
    if name in _HARMLESS or name.endswith(("-file", "_file", "-path")) or name.startswith("no-"):
        return False
    return _NAME.search(name) is not None


def without_password(text: str) -> str:
    """Addresses in it, as far as they have one."""
    return _ADDRESS.sub(rf"\1:{MASK}@", text)
