"""A full disk or a directory that became read-only: each policy does what it says and reports the failure."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.errors import AuditError
from tests.audit.sample_log import event

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the full disk is made by RLIMIT_FSIZE or tmpfs")

FULL = """
import resource, signal, sys, threading
from nyx_stream.audit import AuditEvent, AuditLog
from nyx_stream.errors import AuditError

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def record_all():
    for n in range(1000):
        log.record(AuditEvent(float(n), "p", "files", "read", "x" * 50, True, None, "r", "guard"))

path, policy, end = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit(4000)
failed = threading.Event()
failures = []
def on_failure(error):
    failures.append(error)
    failed.set()
log = AuditLog.open(path, capacity=100, when_full=policy, on_failure=on_failure)
recorder = threading.Thread(target=record_all)
recorder.start()
if policy != "block":
    recorder.join()
failed.wait()
if end == "recovers":
    if policy == "block":
        print("blocked" if recorder.is_alive() else "not blocked")
    limit(resource.RLIM_INFINITY)
    recorder.join()
try:
    log.close()
    print(len(failures), 0)
except AuditError as error:
    print(len(failures), error.lost, error)
recorder.join()
"""


def run_full(path, policy, end):
    """Returns the number of calls of `on_failure`, the number of lost events, the rest of the output, and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), policy, end], capture_output=True, text=True, check=True, timeout=60
    )
    *output, last = done.stdout.splitlines()
    failures, lost, *text = last.split(maxsplit=2)
    return int(failures), int(lost), [*output, *text], done.stderr


def decisions(path):
    return [event for event in read_log(path) if event.kind == "decision"]


def reported_as_lost(path):
    return sum(int(event.target.split()[0]) for event in read_log(path) if event.action == "drop")


@pytest.mark.parametrize("policy", ["drop-and-count", "stop-plugins", "block"])
def test_a_full_disk_is_an_error_at_close_with_the_count(tmp_path, policy):
    """If the file never takes events again, close raises the number of lost ones. The last line is complete."""
    path = tmp_path / "audit.jsonl"
    failures, lost, text, stderr = run_full(path, policy, "stays full")
    assert failures == 1
    assert lost > 0
    if policy != "block":  # there the thread still records when the log is closed
        assert lost == 1000 - len(decisions(path))
    assert "events were lost: " in text[-1]
    assert "events are kept in memory" in stderr
    assert verify(path).fault is None
    assert verify(path).unfinished == 0


def test_a_log_that_recovers_records_the_number_of_lost_events(tmp_path):
    """Kept events are written when the disk has space again, with a count of the dropped ones."""
    path = tmp_path / "audit.jsonl"
    _, lost, _, stderr = run_full(path, "drop-and-count", "recovers")
    assert len(decisions(path)) == 1000 - lost
    assert reported_as_lost(path) == lost > 0
    assert "takes events again" in stderr
    assert verify(path).fault is None


def test_block_waits_and_loses_nothing(tmp_path):
    """Recording waits while the disk is full; then every event is written, in order."""
    path = tmp_path / "audit.jsonl"
    failures, lost, output, _ = run_full(path, "block", "recovers")
    assert (failures, lost, output) == (1, 0, ["blocked"])
    assert [each.time for each in decisions(path)] == list(range(1000))
    assert reported_as_lost(path) == 0


def test_flush_raises_while_the_disk_is_full(tmp_path):
    """Events that are not in the file are not acknowledged: flush raises each time until the disk has space."""
    with small_disk(tmp_path) as disk:
        log = AuditLog.open(disk / "audit.jsonl", fsync="each")
        filler = disk / "filler"
        fill(filler)
        for number in range(50):
            log.record(event(number, "x" * 2000))
        for _ in range(2):
            with pytest.raises(AuditError, match=r"No space left on device|short write"):
                log.flush()
        filler.unlink()
        while log.failure is not None:  # the log retries in its own thread
            pass
        log.flush()
        assert [each.time for each in decisions(disk / "audit.jsonl")] == list(range(50))
        log.close()
        assert verify(disk / "audit.jsonl").fault is None


def test_a_disk_too_full_to_rotate_loses_no_acknowledged_event(tmp_path):
    """Seals, new files and records compete for the last bytes: the files verify and lost events are counted."""
    with small_disk(tmp_path) as disk:
        path = disk / "audit.jsonl"
        log = AuditLog.open(path, segment_bytes=16_384, capacity=50)
        acknowledged = 0
        while log.failure is None:
            log.record(event(acknowledged, "x" * 500))
            with suppress(AuditError):
                log.flush()
                acknowledged += 1
        with pytest.raises(AuditError, match="1 event was lost"):
            log.close()
        assert verify(path).fault is None
        assert [each.time for each in decisions(path)] == list(range(acknowledged))


NEW_SEGMENT = """
import os, resource, signal, sys
from nyx_stream.audit import AuditEvent, AuditLog
from nyx_stream.errors import AuditError

path = sys.argv[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog.open(path)
os.rename(path, path + ".000001")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log.record(AuditEvent(1.0, "p", "files", "read", "x", True, None, "r", "guard"))
try:
    log.flush()
except AuditError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while log.failure is not None:
    pass
log.close()
"""


def test_a_segment_that_could_not_be_begun_is_begun_later(tmp_path):
    """A disk that is full when a new file is created does not leave a file without its first record."""
    path = tmp_path / "audit.jsonl"
    command = [sys.executable, "-c", NEW_SEGMENT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "short write: 100 of" in done.stdout
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(record["seq"], record["kind"]) for record in records] == [(2, "segment"), (3, "decision"), (4, "seal")]


READ_ONLY = """
import os, sys
from nyx_stream.audit import AuditEvent, AuditLog
from nyx_stream.errors import AuditError

folder, when = sys.argv[1:]
def record(start, stop):
    for n in range(start, stop):
        log.record(AuditEvent(float(n), "p", "files", "read", "x" * 50, True, None, "r", "guard"))
        log.flush()
if when == "before":
    os.chmod(folder, 0o500)
failures = []
try:
    log = AuditLog.open(folder + "/audit.jsonl", segment_bytes=4096, on_failure=failures.append)
except AuditError as error:
    raise SystemExit(f"refused: {error}")
os.chmod(folder, 0o500)
record(0, 40)
os.chmod(folder, 0o700)
record(40, 80)
log.close()
print(type(failures[0]).__name__)
"""


def run_read_only(folder, when):
    """Runs the program with the mode of a directory in force: root drops the capability that overrides it."""
    folder.mkdir()
    command = ["setpriv", "--bounding-set=-dac_override", "--"] if os.geteuid() == 0 else []
    if command and shutil.which("setpriv") is None:
        pytest.skip("root overrides modes, and setpriv is not installed")
    return subprocess.run(
        [*command, sys.executable, "-c", READ_ONLY, str(folder), when], capture_output=True, text=True, check=False
    )


def test_a_read_only_directory_is_an_error_at_the_start(tmp_path):
    """A log that cannot be created is an error before any plugin runs."""
    done = run_read_only(tmp_path / "log", "before")
    assert done.returncode == 1
    assert re.search(r"refused: audit log .*cannot be opened: .*Permission denied", done.stderr)


def test_a_directory_that_became_read_only_stops_rotation_but_loses_no_record(tmp_path):
    """The segment grows on, `on_failure` and a record report why, and rotation resumes when the directory allows it."""
    done = run_read_only(tmp_path / "log", "later")
    assert done.stdout == "PermissionError\n", done.stderr
    assert "the segment grows beyond its size" in done.stderr
    path = tmp_path / "log" / "audit.jsonl"
    assert [each.time for each in decisions(path)] == list(range(80))
    assert next(each.action for each in read_log(path) if each.kind == "log") == "rotate"
    assert verify(path).fault is None
    assert verify(path).segments > 1


class small_disk:
    """A file system of 256 KiB."""

    def __init__(self, folder):
        self.folder = folder / "disk"

    def __enter__(self):
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(self.folder)]
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting a small tmpfs requires root on Linux")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
        return self.folder

    def __exit__(self, *_):
        subprocess.run(["umount", str(self.folder)], check=True)


def fill(path):
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
