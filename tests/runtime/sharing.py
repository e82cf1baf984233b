"""A process that approves one rule after the other in a shared lock file, each in its turn beside another process.

`python -m tests.runtime.sharing LOCK NAME ROUNDS`; begins when a line comes to its standard input.
"""

import sys

from nyx_stream.host.approvals.store import Standing
from nyx_stream.host.lockfile.file import LockFile
from nyx_stream.host.lockfile.verification import keep
from nyx_stream.policy import ConnectRule
from nyx_stream.policy.approval import OptionalPermission, Ticket

CONTENT = "blake2b:" + "0" * 64


def main(path: str, name: str, rounds: int) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        permission = OptionalPermission("connect", ConnectRule.parse(f"{name}{number}.example.com"))
        keep(LockFile(path), "p", CONTENT, [Standing(permission, "always", "approved always", Ticket())])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
