"""Runs in a Windows Python under `test_under_wine`: one case by name, whose result it prints as JSON."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import asdict, replace

sys.path.insert(0, sys.argv[1])

from nyx_core.sandbox import SandboxError, SandboxPolicy, confine, probe
from nyx_core.sandbox.confinement import confinement_for
from nyx_core.windows import job_records as records
from nyx_core.windows.job_objects import JobObject
from nyx_core.windows.kernel32 import Win32Error, load_kernel32

MINIMAL = confinement_for(SandboxPolicy.MINIMAL)


def calls() -> dict[str, object]:
    """Every call as the layer makes it: create, set, enter, query, and an error."""
    kernel = load_kernel32()
    memory = kernel.memory_information(records.memory_record(kernel.word))
    before = kernel.in_job(None)
    job = kernel.create_job()
    asked = records.JobLimits(1, 1 << 28, 60)
    kernel.set_information(job, records.EXTENDED_LIMITS, records.limits_record(asked, kernel.word))
    kernel.set_information(job, records.BASIC_UI_RESTRICTIONS, records.UI_RECORD.pack(records.UI_RESTRICTIONS))
    kept = kernel.query_information(job, records.EXTENDED_LIMITS, records.limits_size(kernel.word))
    kernel.assign(job)
    counted = kernel.query_information(job, 1, 48)  # JobObjectBasicAccountingInformation
    found: dict[str, object] = {
        "word": kernel.word,
        "committed": records.read_committed(memory, kernel.word),
        "in_job": [before, kernel.in_job(job)],
        "active": struct.unpack("<4q4I", counted)[6],
        "kept": asdict(records.read_limits(kept, kernel.word)),
    }
    try:
        kernel.close(0x1234)
    except Win32Error as error:
        found["error"] = [error.call, error.code, str(error)]
    return found


def sizes() -> dict[str, object]:
    """Whether the system accepts records of the documented size only."""
    kernel = load_kernel32()
    job = kernel.create_job()
    record = records.limits_record(records.JobLimits(1, None, None), kernel.word)
    answers = {}
    for length in (len(record) - 8, len(record), len(record) + 8):
        try:
            kernel.set_information(job, records.EXTENDED_LIMITS, record.ljust(length, b"\0")[:length])
            answers[length] = 0
        except Win32Error as error:
            answers[length] = error.code
    kernel.close(job)
    return {"answers": sorted(answers.items())}


def layer() -> dict[str, object]:
    """The layer, `probe` and `confine`, on a system that doesn't keep limits."""
    report = JobObject().apply(MINIMAL, ())
    found: dict[str, object] = {
        "state": report.state.value,
        "reason": report.reason,
        "in_job": load_kernel32().in_job(None),
        "survey": [layer.name for layer in probe().layers],
    }
    try:
        confine(MINIMAL)
    except SandboxError as error:
        found["refused"] = str(error)
    accepted = confine(replace(MINIMAL, may_degrade=frozenset({"job_object"})))
    found["accepted"] = {entry.name: entry.state.value for entry in accepted.layers}
    return found


print(json.dumps({"calls": calls, "sizes": sizes, "layer": layer}[sys.argv[2]]()))
