"""What looks like a secret, by its name or by a password in an address."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def without_password(text: str) -> str:
    """Addresses in it, as far as they have one."""
    return _ADDRESS.sub(rf"\1:{MASK}@", text)
