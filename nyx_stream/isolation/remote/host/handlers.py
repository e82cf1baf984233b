"""Which capabilities a worker can ask for: the host's handlers by name. See `broker`.

Each imports what it needs when it is first asked: a plugin without HTTP costs no import of an HTTP client.
"""

from collections.abc import Mapping

from nyx_stream.isolation.remote.host.broker import Handler, HandlerFactory, Means


def _http(means: Means) -> Handler:
    from nyx_stream.isolation.remote.host.http import HostHttp

    return HostHttp(means)


def _files(means: Means) -> Handler:
    from nyx_stream.isolation.remote.host.files import HostFiles

    return HostFiles(means)


def _connect(means: Means) -> Handler:
    from nyx_stream.isolation.remote.host.connect import HostConnect

    return HostConnect(means)


def _approval(means: Means) -> Handler:
    from nyx_stream.isolation.remote.host.approval import HostApproval

    return HostApproval(means)


HANDLERS: Mapping[str, HandlerFactory] = {
    "http": _http,
    "files": _files,
    "connect": _connect,
    "approval": _approval,
}
