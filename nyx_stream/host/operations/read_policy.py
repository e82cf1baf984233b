"""How a host comes to a policy: read whole, checked whole, its secrets at hand, before anything of it is in force."""

import asyncio
import os

from nyx_stream.capabilities.http.credentials import Keyring, Unresolved
from nyx_stream.errors import NyxError, PolicyError, Problem
from nyx_stream.policy import SandboxPolicy

AnyPolicy = SandboxPolicy | str | os.PathLike[str]


async def read_policy(policy: AnyPolicy | None) -> tuple[SandboxPolicy | None, str | None]:
    """Returns a policy, and the absolute path of the file that it comes from if it does.

    Raises:
        PolicyError: the file is wrong, or a credential cannot be had; every fault is in it.
        OSError: the file cannot be read.
    """
    if policy is None:
        return None, None
    if isinstance(policy, SandboxPolicy):
        if policy.credentials:
            await asyncio.to_thread(_check_credentials, policy)
        return policy, None
    return await asyncio.to_thread(_read_file, os.fspath(policy))


def told(error: BaseException) -> str:
    """Returns on one line why a policy or a plugin's files could not be taken. Only for errors of the host's own."""
    if isinstance(error, PolicyError):
        return "; ".join(str(problem).partition("\n")[0] for problem in error.problems)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    return str(error) if isinstance(error, NyxError) else type(error).__name__


def _read_file(path: str) -> tuple[SandboxPolicy, str]:
    policy = SandboxPolicy.from_toml(path)
    _check_credentials(policy)
    return policy, os.path.abspath(path)


def _check_credentials(policy: SandboxPolicy) -> None:
    keyring = Keyring()
    problems: list[Problem] = []
    for item in policy.credentials:
        try:
            keyring.secret(item)
        except Unresolved as error:
            where, line = (item.source.where, item.source.line) if item.source else ("bind_credential", None)
            problems.append(Problem(str(error), where=where, line=line))
    if problems:
        raise PolicyError(problems)
