"""setup_primary's uid and gid: given up for good, supplementary groups too, and still served."""

from __future__ import annotations

import ast
import os
import socket

import pytest

from tests.cli.test_user import python
from tests.harness.ports import kept_port
from tests.harness.servers import Server
from tests.node.script import APPS, WITHIN

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("gid", [NOBODY, None])
def test_a_worker_is_somebody_else(gid: int | None) -> None:
    port = kept_port()
    ids = [str(one) for one in (port, NOBODY, gid) if one is not None]
    with Server([python(), "given_up.py", *ids], cwd=APPS) as script:
        script.output.wait("listening", WITHIN)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), WITHIN) as connection:
                users, groups, others = ast.literal_eval(connection.makefile().read())
            assert users == (NOBODY,) * 3
            assert groups == ((gid or 0),) * 3
            assert others == []
