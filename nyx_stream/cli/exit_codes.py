"""The exit codes, and which error results in which code."""

from enum import IntEnum
from typing import Self

from nyx_core.sandbox import SandboxError
from nyx_stream.errors import (
    AuditError,
    LimitExceeded,
    LockError,
    PluginBusy,
    PluginError,
    PluginLoadError,
    PluginNotFound,
    PluginSetupError,
    PluginStateError,
    PluginTimeout,
    PolicyError,
    SandboxDenied,
)


class ExitCode(IntEnum):
    """Exit codes of the `nyx` command. `meaning` is the line of the table in the docs."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "success; for `nyx why`: allowed; for `nyx check`: nothing found that would fail"
    DENIED = (
        1,
        (
            "`nyx why`, `nyx check` or `nyx audit verify` has a negative result; `nyx plan --diff`: the new "
            "one asks for more; a call was refused"
        ),
    )
    USAGE = 2, "the command line is wrong"
    CONFIG = 3, "a policy, manifest, host file or lock file is wrong; the message has the line"
    PLUGIN = 4, "the plugin doesn't exist or doesn't load, or its `setup` fails"
    CALL = 5, "the call failed: unknown method, wrong arguments or result, or the method raised"
    LIMIT = 6, "a limit of the grant was reached: a timeout, a size, the queue of calls"
    FILE = 7, "a file can't be read or written"
    EXTRA = 8, "the command line isn't installed: the extra `cli` is missing"
    SANDBOX = 9, "a required layer can't be applied on this host"
    INTERNAL = 70, "an internal error of Nyx; `NYX_LOG=debug` prints where"
    INTERRUPTED = 130, "interrupted from the keyboard"


# The first match decides, so the narrower errors come first.
_BY_ERROR: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode], ...] = (
    (SandboxError, ExitCode.SANDBOX),
    (PolicyError, ExitCode.CONFIG),
    (SandboxDenied, ExitCode.DENIED),
    ((LimitExceeded, PluginTimeout, PluginBusy), ExitCode.LIMIT),
    ((PluginNotFound, PluginLoadError, PluginSetupError, PluginStateError), ExitCode.PLUGIN),
    (PluginError, ExitCode.CALL),
    (LockError, ExitCode.CONFIG),
    (AuditError, ExitCode.FILE),
    (OSError, ExitCode.FILE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def code_of(error: BaseException) -> ExitCode:
    """Returns the exit code for an error that ends a command."""
    # A method that did not catch a denial or an exceeded limit failed because of it.
    for cause in (error, error.__cause__):
        if isinstance(cause, SandboxDenied):
            return ExitCode.DENIED
        if isinstance(cause, LimitExceeded):
            return ExitCode.LIMIT
    return next((code for kinds, code in _BY_ERROR if isinstance(error, kinds)), ExitCode.INTERNAL)
