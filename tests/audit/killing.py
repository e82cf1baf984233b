"""Writers that are killed, round after round. Run as a program: `killing.py FOLDER ROUNDS SEED`.

Each round forks a writer and kills it at a moment drawn from the seed: while it opens the log, repairs it, writes,
syncs, rotates or seals. The writer tells over a pipe what `flush` has confirmed. Prints one JSON object per round.
"""

import glob
import json
import os
import random
import signal
import struct
import sys
import time

from nyx_stream.audit import AuditEvent, AuditLog, read_log, verify

ROUNDS_OF_A_FILE = 5
"""After so many kills a log is left alone and another begins; until then, each opening repairs what was left."""

_ACKNOWLEDGED = struct.Struct("=Q")


SHAPES = ((1, 20), (1, 0), (20, 5), (200, 1), (2000, 0))
"""How many events are recorded between two flushes, and how many flushes are over, at least, at the kill."""


def write(path: str, number: int, told: int, every: int, draw: random.Random) -> None:
    """The writer: records without pause, and tells what is confirmed."""
    fsync = draw.choice(("each", "interval", "never"))
    log = AuditLog.open(path, fsync=fsync, segment_bytes=draw.choice((1 << 15, 1 << 20)), sync_interval=0.001)
    target = "x" * draw.choice((10, 1500))
    count = 0
    while True:
        for _ in range(every):
            count += 1
            log.record(AuditEvent(float(count), f"round-{number}", "files", "read", target, True, None, "r", "guard"))
        log.flush()
        os.write(told, _ACKNOWLEDGED.pack(count))


def kill_one(path: str, number: int, draw: random.Random) -> int:
    """Runs one writer and kills it; returns how many events it had acknowledged."""
    listen, told = os.pipe()
    every, flushes = draw.choice(SHAPES)
    writer = os.fork()
    if writer == 0:
        try:
            write(path, number, told, every, random.Random(draw.random()))
        finally:
            os._exit(1)
    os.close(told)
    heard = b""
    while len(heard) < flushes * _ACKNOWLEDGED.size and (part := os.read(listen, 1 << 16)):
        heard += part
    end = time.perf_counter() + draw.uniform(0, 0.006)
    while time.perf_counter() < end:
        pass
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"round {number}: the writer ended by itself")
    while part := os.read(listen, 1 << 16):
        heard += part
    os.close(listen)
    whole = len(heard) // _ACKNOWLEDGED.size * _ACKNOWLEDGED.size
    return _ACKNOWLEDGED.unpack(heard[whole - _ACKNOWLEDGED.size : whole])[0] if whole else 0


def main(folder: str, rounds: int, seed: int) -> None:
    """Kills that many writers and says of each what its log holds."""
    draw = random.Random(seed)
    for number in range(rounds):
        path = f"{folder}/{number // ROUNDS_OF_A_FILE}.jsonl"
        acknowledged = kill_one(path, number, draw)
        begun = any(os.path.getsize(entry) for entry in glob.glob(f"{path}*"))
        found = verify(path) if begun else None
        events = list(read_log(path)) if begun else []
        kept = [event.time for event in events if event.plugin == f"round-{number}"]
        row = {
            "round": number,
            "acknowledged": acknowledged,
            "kept": len(kept),
            "in order": kept == [float(count) for count in range(1, len(kept) + 1)],
            "fault": None if found is None or found.fault is None else str(found.fault),
            "unfinished": 0 if found is None else found.unfinished,
            "repairs": sum(event.action == "repair" for event in events),
            "segments": 0 if found is None else found.segments,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
