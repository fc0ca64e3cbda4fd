"""Words about pm2's keys: other names of them, and why some have no counterpart."""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, str] = {
    "exec": "script", "cmd": "script", "command": "script",
    "exec_interpreter": "interpreter",
    "interpreter_args": "node_args", "interpreterArgs": "node_args",
    "out": "out_file", "output": "out_file", "out_log": "out_file",
    "error": "error_file", "err": "error_file", "err_file": "error_file", "err_log": "error_file",
    "log": "log_file", "combine_logs": "merge_logs", "cron": "cron_restart", "user": "uid",
    "pid": "pid_file",
}  # fmt: skip

_TREE = "the stop signal goes to the whole process group"
_NODE = "it is about Node's inside; the app is run unmodified"
_SAAS = "it is for pm2's own web service"

REASONS: Mapping[str, str] = {
    "name_prefix": "write the whole name",
    "install_url": "nothing is installed",
    "filter_env": "workers get the environment of the shell that starts them; say env to change it",
    "wait_ready": "process.send('ready') is for pm2; here an app is ready when it listens",
    "pid_file": "rrdispatch pid NAME prints the process ids",
    "shutdown_with_message": "a worker is asked by a signal: stop_signal, TERM if not said",
    "watch_delay": "changes are gathered until they pause",
    "watch_options": "changes are learned from the kernel, there is nothing to set",
    "execute_command": "a command line is always run as one",
    "force": "say it where you start: rrdispatch start -f",
    "append_env_to_name": "write the name as you want it",
    "increment_var": "each worker has its number in RRDISPATCH_SLOT; and a port is shared by all",
    "instance_var": "each worker has its number in RRDISPATCH_SLOT",
    "kill_retry_time": "the kernel tells when a process is gone, nobody asks again and again",
    "treekill": _TREE,
    "source_map_support": _NODE,
    "disable_source_map_support": _NODE,
    "vizion": "the version of the source is not looked for",
    "pmx": _SAAS,
    "automation": _SAAS,
    "trace": _SAAS,
    "disable_trace": _SAAS,
    "v8": _NODE,
    "event_loop_inspector": _NODE,
    "deep_monitoring": _SAAS,
    "post_update": _SAAS,
    "io": _SAAS,
    "username": "say uid",
    "windowsHide": "there is no Windows here",
    "write": "it has no meaning in a file",
    "deploy": "it is for pm2 deploy, which is not here: deploy as you like, then reload",
    "static": "files are not served: start a server for them",
}

# With these values nothing is missing: no word about them.
HARMLESS: Mapping[str, object] = {
    "wait_ready": False,
    "filter_env": False, "shutdown_with_message": False, "force": False, "treekill": True,
    "append_env_to_name": False, "vizion": False, "pmx": False, "automation": False,
    "trace": False, "disable_trace": True, "v8": False, "event_loop_inspector": False,
    "deep_monitoring": False, "source_map_support": False, "disable_source_map_support": True,
    "windowsHide": True, "execute_command": False,
}  # fmt: skip
