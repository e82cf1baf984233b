"""Kills a writer in each of many rounds. Run as a program: `killed_writers.py FOLDER ROUNDS SEED`.

Each round forks a writer and kills it at a moment drawn from the seed: while it opens the log, repairs it, writes,
syncs, rotates or seals. The writer reports through a pipe what `flush` has confirmed. Prints one JSON object per round.
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

ROUNDS_PER_FILE = 5
"""Kills per log; each opening of the log repairs what the previous writer left."""

_ACKNOWLEDGED = struct.Struct("=Q")


FLUSH_PATTERNS = ((1, 20), (1, 0), (20, 5), (200, 1), (2000, 0))
"""Events recorded between two flushes, and the minimum number of flushes before the kill."""


def write(path: str, number: int, pipe: int, every: int, rng: random.Random) -> None:
    """The writer: records without pause and reports what is confirmed."""
    fsync = rng.choice(("each", "interval", "never"))
    log = AuditLog.open(path, fsync=fsync, segment_bytes=rng.choice((1 << 15, 1 << 20)), sync_interval=0.001)
    target = "x" * rng.choice((10, 1500))
    count = 0
    while True:
        for _ in range(every):
            count += 1
            log.record(AuditEvent(float(count), f"round-{number}", "files", "read", target, True, None, "r", "guard"))
        log.flush()
        os.write(pipe, _ACKNOWLEDGED.pack(count))


def kill_one(path: str, number: int, rng: random.Random) -> int:
    """Runs one writer and kills it; returns how many events it had acknowledged."""
    reader, pipe = os.pipe()
    every, flushes = rng.choice(FLUSH_PATTERNS)
    writer = os.fork()
    if writer == 0:
        try:
            write(path, number, pipe, every, random.Random(rng.random()))
        finally:
            os._exit(1)
    os.close(pipe)
    reported = b""
    while len(reported) < flushes * _ACKNOWLEDGED.size and (part := os.read(reader, 1 << 16)):
        reported += part
    end = time.perf_counter() + rng.uniform(0, 0.006)
    while time.perf_counter() < end:
        pass
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"round {number}: the writer exited before it was killed")
    while part := os.read(reader, 1 << 16):
        reported += part
    os.close(reader)
    complete = len(reported) // _ACKNOWLEDGED.size * _ACKNOWLEDGED.size
    return _ACKNOWLEDGED.unpack(reported[complete - _ACKNOWLEDGED.size : complete])[0] if complete else 0


def main(folder: str, rounds: int, seed: int) -> None:
    """Kills that many writers and prints what each log holds."""
    rng = random.Random(seed)
    for number in range(rounds):
        path = f"{folder}/{number // ROUNDS_PER_FILE}.jsonl"
        acknowledged = kill_one(path, number, rng)
        exists = any(os.path.getsize(entry) for entry in glob.glob(f"{path}*"))
        found = verify(path) if exists else None
        events = list(read_log(path)) if exists else []
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
