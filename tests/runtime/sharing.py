"""A process that records one approval after the other in a lock file that it shares with another process.

`python -m tests.runtime.sharing LOCK NAME ROUNDS`; begins when a line comes to its standard input.
"""

import sys

from nyx_stream.host.lockfile.file import LockedApproval, LockFile

CONTENT = "blake2b:" + "0" * 64


def main(path: str, name: str, rounds: int) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        approval = LockedApproval(kind="connect", rule=f"{name}{number}.example.com", verdict="always")
        LockFile(path).add_approvals("p", CONTENT, [approval])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
