"""One worker's spawn: its descriptors, its environment (docs/protocol.md 2), its command.

Makes the descriptors and the process, and gives back who owns them: a WorkerHandle. Decides
nothing: who is spawned when is the plan's business.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rrdispatch
from rrdispatch import _core, mutants
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.cluster import identity, sdnotify, share
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.launch import Launch
from rrdispatch.cluster.program import preload
from rrdispatch.net.channels import Channel

SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)

BOOT = str(Path(rrdispatch.__file__).with_name("serve") / "boot.py")

LEAKED = 500


class Numbers:
    """Of descriptors in the worker; those of sd_listen_fds(3) have to be the first."""

    def __init__(self, shared: int) -> None:
        first = share.FIRST + shared
        self.scoreboard, self.notify, self.lifeline, self.channel = range(first, first + 4)


@dataclass(frozen=True, slots=True)
class Shim:
    """What makes an unmodified program take from our channels."""

    library: str  # preloaded
    told: Mapping[str, str]  # its environment


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker is to stand."""

    worker: int
    slot: int
    generation: int
    workers: int
    listeners: Sequence[Mapping[str, Any]]  # as net.listeners.describe() tells them
    nofile: tuple[int, int]
    shim: Shim | None = None
    shared: Sequence[int] = ()  # the listening sockets themselves
    names: Mapping[str, str] = field(default_factory=dict)  # and what is told of them
    core: int | None = None  # the only one that it may use
    stdio: Sequence[int] | None = None  # of ours, in place of /dev/null and the logger's pipes
    also: Sequence[tuple[int, int]] = ()  # pairs (ours, its)


def spawn(launch: Launch, post: Post) -> WorkerHandle:
    """Starts it; OSError (its filename names the step) leaves nothing behind."""
    with ExitStack() as on_error, ExitStack() as its_ends:
        handle = WorkerHandle(post.worker, post.slot, post.generation)
        on_error.callback(handle.close)
        fds = _descriptors(handle, post, its_ends)
        command = launch.argv or (launch.python, BOOT)
        handle.says_ready = post.shim is None or launch.settings.wait_ready
        if launch.argv and post.stdio is None:
            handle.sd_notify = sdnotify.open_socket()
        request = SpawnRequest(
            program=command[0],
            arguments=list(command),
            environment=environment(launch, post, handle.sd_notify),
            cwd=launch.cwd,
            fds=fds,
            lifeline=Numbers(len(post.shared)).lifeline,
            setsid=True,
            nofile=post.nofile,
            cores=None if post.core is None else [post.core],
            own_pid=share.OWN_PID if post.shared else None,
        )
        if launch.identity is not None:
            request = _by_way_of_another(request, launch.identity, handle, post, its_ends)
        handle.pid, handle.pidfd = _core.spawn(request)
        on_error.pop_all()
    return handle


def _by_way_of_another(
    request: SpawnRequest,
    whom: identity.Identity,
    handle: WorkerHandle,
    post: Post,
    its_ends: ExitStack,
) -> SpawnRequest:
    """The same program, by a process that becomes that user first."""
    for fd in (handle.stdout, handle.stderr):  # /dev/stdout is opened anew by its path
        os.fchown(fd, whom.uid, whom.gid)
    number = max(its for _, its in request.fds) + 1
    told = identity.write_told(
        {
            "uid": whom.uid,
            "gid": whom.gid,
            "groups": list(whom.groups),
            "name": whom.name,
            "arguments": [request.program, *request.arguments[1:]],
            "environment": request.environment,
            "cwd": request.cwd,
            "own_pid": request.own_pid,
            "notify": Numbers(len(post.shared)).notify,
        }
    )
    its_ends.callback(os.close, told)
    arguments = identity.command(number)
    return dataclasses.replace(
        request,
        program=arguments[0],
        arguments=arguments,
        environment=identity.environment(),
        cwd="/",
        fds=[*request.fds, (told, number)],
        own_pid=None,
    )


def _descriptors(handle: WorkerHandle, post: Post, its_ends: ExitStack) -> list[tuple[int, int]]:
    """Fills the handle; the pairs (ours, its number) of what goes to the worker."""

    def its(fd: int) -> int:
        its_ends.callback(os.close, fd)
        return fd

    numbers = Numbers(len(post.shared))
    pairs = [*post.also]
    if post.stdio is not None:
        pairs += [(fd, number) for number, fd in enumerate(post.stdio)]
    else:
        handle.stdout, out = os.pipe2(os.O_CLOEXEC)
        pairs += [(its(out), 1)]
        handle.stderr, err = os.pipe2(os.O_CLOEXEC)
        pairs += [(its(err), 2), (its(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)), 0)]
    handle.open_scoreboard(_core.scoreboard_create(handle.slot, handle.generation))
    handle.notify, far = socket.socketpair(
        socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    pairs += [(handle.scoreboard, numbers.scoreboard), (its(far.detach()), numbers.notify)]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    handle.lifeline = near.detach()
    pairs.append((its(far.detach()), numbers.lifeline))
    for index in range(len(post.listeners)):
        channel = handle.channels[index] = Channel.create()
        pairs.append((channel.receiver, numbers.channel + index))
    pairs += [(fd, share.FIRST + index) for index, fd in enumerate(post.shared)]
    if mutants.enabled("leaky-fds"):
        pairs += _everything()
    return pairs


def _everything() -> list[tuple[int, int]]:
    """The mutant: all that the primary holds, at numbers that are nobody's."""
    held = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:200]
    return [(fd, LEAKED + fd) for fd in held if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")]


def environment(
    launch: Launch, post: Post, sd_notify: socket.socket | None = None
) -> dict[str, str]:
    """The generation's environment and this worker's place."""
    settings = launch.settings
    app = settings.app()
    if app.get("max_requests") and settings.max_requests_jitter:
        app["max_requests"] += random.randint(0, settings.max_requests_jitter)  # noqa: S311
    numbers = Numbers(len(post.shared))
    listeners = [
        {"fd": numbers.channel + index, **told} for index, told in enumerate(post.listeners)
    ]
    place = {
        "PROTOCOL": "1",
        "NAME": settings.name or "app",
        "SLOT": str(post.slot),
        "GENERATION": str(post.generation),
        "WORKERS": str(post.workers),
        "LISTENERS": json.dumps(listeners),
        "SCOREBOARD": str(numbers.scoreboard),
        "NOTIFY": str(numbers.notify),
        "LIFELINE": str(numbers.lifeline),
        "APP": json.dumps(app),
    }
    told = {"RRDISPATCH_" + key: value for key, value in place.items()}
    if post.shim is not None:
        told |= {**post.shim.told, **preload(launch.environment, post.shim.library)}
    inherited = dict(launch.environment)
    if launch.argv:
        for name in sdnotify.OF_SYSTEMD:
            inherited.pop(name, None)
        told |= sdnotify.variables(sd_notify, settings.heartbeat_timeout)
    if post.shared:
        told |= post.names
    return {**inherited, **told}
