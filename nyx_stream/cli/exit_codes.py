"""The one table of exit codes, and which error ends in which. Knows errors, not commands."""

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
    """What the `nyx` command ends with. `meaning` is the line of the table in the docs."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "done; for `nyx why`: allowed; for `nyx check`: nothing found that would fail"
    DENIED = (
        1,
        (
            "the answer of `nyx why`, `nyx check` or `nyx audit verify` is no; `nyx plan --diff` wants more; "
            "a call was refused"
        ),
    )
    USAGE = 2, "the command line is wrong"
    CONFIG = 3, "a policy, a manifest, a host file or a lock file is wrong; what is wrong is printed, with its line"
    PLUGIN = 4, "the plugin is not there, does not load, or its `setup` fails"
    CALL = 5, "the call failed: no such method, wrong arguments or result, or the method raised"
    LIMIT = 6, "a limit of the grant was reached: the timeout, a size, the queue of calls"
    FILE = 7, "a file cannot be read or written"
    EXTRA = 8, "the command line is not installed: the extra `cli` is missing"
    SANDBOX = 9, "a layer that was required cannot be applied on this host"
    INTERNAL = 70, "a fault of Nyx itself; `NYX_LOG=debug` prints where"
    INTERRUPTED = 130, "ended by an interrupt from the keyboard"


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
    # A method that let a denial or a limit through failed because of that, and says so to whoever asks by code.
    for cause in (error, error.__cause__):
        if isinstance(cause, SandboxDenied):
            return ExitCode.DENIED
        if isinstance(cause, LimitExceeded):
            return ExitCode.LIMIT
    return next((code for kinds, code in _BY_ERROR if isinstance(error, kinds)), ExitCode.INTERNAL)
