"""The vault is whole at every moment: whatever is cut, one of the last two texts is read."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.cluster.vault import LEAST, ROOM, TEXTS, Vault, VaultError, read


@given(st.lists(st.integers(1, 3 * LEAST), min_size=1, max_size=12), st.data())
def test_a_write_cut_anywhere_leaves_the_text_before(
    lengths: list[int], data: st.DataObject
) -> None:
    vault = Vault()
    try:
        texts = [bytes([number]) * length for number, length in enumerate(lengths)]
        for text in texts[:-1]:
            vault.write(text)
        before = _copy(vault.fd)
        vault.write(texts[-1])
        after = _copy(vault.fd)
        cut = TEXTS + data.draw(st.integers(0, len(after) - TEXTS))
        # Up to `cut` of the text, nothing of the header: killed in the midst of the first write.
        torn = bytearray(before.ljust(len(after), b"\0"))
        torn[TEXTS:cut] = after[TEXTS:cut]
        _put(vault.fd, bytes(torn))
        if len(texts) > 1:
            assert read(vault.fd) == texts[-2]
        else:
            with pytest.raises(VaultError):
                read(vault.fd)
        _put(vault.fd, after)
        assert read(vault.fd) == texts[-1]
    finally:
        vault.close()


def test_a_torn_header_is_not_read() -> None:
    vault = Vault()
    vault.write(b"one")
    vault.write(b"two")
    os.pwrite(vault.fd, b"x", (2 % 2) * ROOM + 20)
    assert read(vault.fd) == b"one"
    os.pwrite(vault.fd, b"x", ROOM + 20)
    with pytest.raises(VaultError):
        read(vault.fd)
    vault.close()


def test_another_writer_goes_on() -> None:
    first = Vault()
    first.write(b"a" * 100_000)
    second = Vault(os.dup(first.fd))
    for number in range(5):
        second.write(b"%d" % number * 50_000)
        assert read(first.fd) == b"%d" % number * 50_000
    first.close()
    second.close()


def test_killed_while_it_writes() -> None:
    """A real writer, killed at a random moment: what is read was written, whole."""
    for _ in range(20):
        vault = Vault()
        vault.write(b"0" * 40_000)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"!")
            number = 0
            while True:
                number = (number + 1) % 10
                vault.write(b"%d" % number * 40_000)
        os.read(reader, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        text = read(vault.fd)
        assert len(text) == 40_000
        assert len(set(text)) == 1
        os.close(reader)
        os.close(writer)
        vault.close()


def _copy(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _put(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)
