"""What a sealed plugin sees of its capabilities: the worker's proxies by name. See `line`.

Each is imported on first use; those that the zygote has imported already cost nothing then.
"""

from collections.abc import Mapping
from typing import Any

from nyx_stream.isolation.process.line import Line, ProxyFactory


def _http(line: Line) -> Any:
    from nyx_stream.isolation.process.worker_http import http

    return http(line)


def _files(line: Line) -> Any:
    from nyx_stream.isolation.process.worker_files import files

    return files(line)


def _connect(line: Line) -> Any:
    from nyx_stream.isolation.process.worker_connect import connect

    return connect(line)


def _approval(line: Line) -> Any:
    from nyx_stream.isolation.process.worker_approval import approval

    return approval(line)


PROXIES: Mapping[str, ProxyFactory] = {
    "http": _http,
    "files": _files,
    "connect": _connect,
    "approval": _approval,
}
