"""What a sealed plugin sees of its capabilities: the worker's proxies by name. See `line`.

Each is imported on first use; those that the zygote has imported already cost nothing then.
"""

from collections.abc import Mapping
from typing import Any

from nyx_stream.isolation.remote.worker.rpc import CapabilityStub, ProxyFactory


def _http(line: CapabilityStub) -> Any:
    from nyx_stream.isolation.remote.worker.http import http

    return http(line)


def _files(line: CapabilityStub) -> Any:
    from nyx_stream.isolation.remote.worker.files import files

    return files(line)


def _connect(line: CapabilityStub) -> Any:
    from nyx_stream.isolation.remote.worker.connect import connect

    return connect(line)


def _approval(line: CapabilityStub) -> Any:
    from nyx_stream.isolation.remote.worker.approval import approval

    return approval(line)


PROXIES: Mapping[str, ProxyFactory] = {
    "http": _http,
    "files": _files,
    "connect": _connect,
    "approval": _approval,
}
