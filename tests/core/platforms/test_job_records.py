"""The records of Job Objects, compared with the structures of winnt.h."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_core.windows import job_records as records
from nyx_core.windows.job_records import JobLimits

WORDS: dict[int, Any] = {4: ctypes.c_uint32, 8: ctypes.c_uint64}


def extended_limits(word: int) -> type[ctypes.Structure]:
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION of winnt.h, for a `SIZE_T` of `word` bytes."""
    size_t = WORDS[word]

    class Basic(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", ctypes.c_uint32),
            ("MinimumWorkingSetSize", size_t),
            ("MaximumWorkingSetSize", size_t),
            ("ActiveProcessLimit", ctypes.c_uint32),
            ("Affinity", size_t),
            ("PriorityClass", ctypes.c_uint32),
            ("SchedulingClass", ctypes.c_uint32),
        ]

    class Extended(ctypes.Structure):
        _fields_ = [
            ("Basic", Basic),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", size_t),
            ("JobMemoryLimit", size_t),
            ("PeakProcessMemoryUsed", size_t),
            ("PeakJobMemoryUsed", size_t),
        ]

    return Extended


@pytest.mark.parametrize(("word", "size"), [(4, 112), (8, 144)])
def test_limits_have_the_documented_size(word: int, size: int) -> None:
    """The record has the size of the structure in winnt.h on 32-bit and 64-bit Windows."""
    assert records.limits_size(word) == size == ctypes.sizeof(extended_limits(word))
    assert len(records.limits_record(JobLimits(1, 2, 3), word)) == size


@pytest.mark.parametrize(("word", "size"), [(4, 44), (8, 80)])
def test_memory_counters_carry_their_documented_size(word: int, size: int) -> None:
    """PROCESS_MEMORY_COUNTERS_EX begins with its size, by which Windows recognises it."""
    record = records.memory_record(word)
    assert len(record) == size
    assert int.from_bytes(record[:4], "little") == size


def test_user_interface_restrictions_have_the_documented_size() -> None:
    """User interface restrictions are 4 bytes on every Windows."""
    assert records.UI_RECORD.size == 4


@pytest.mark.parametrize("word", [4, 8])
def test_every_value_is_in_the_field_of_the_structure(word: int) -> None:
    """The structure of winnt.h reads each packed value in its field."""
    seen: Any = extended_limits(word).from_buffer_copy(records.limits_record(JobLimits(1, 0x7000_0000, 5), word))
    assert seen.Basic.PerProcessUserTimeLimit == 50_000_000
    assert seen.Basic.LimitFlags == 0x2000 | 0x100 | 0x8 | 0x2
    assert seen.Basic.ActiveProcessLimit == 1
    assert seen.ProcessMemoryLimit == 0x7000_0000
    assert seen.Basic.PerJobUserTimeLimit == 0
    assert (seen.Basic.Affinity, seen.JobMemoryLimit, seen.PeakJobMemoryUsed) == (0, 0, 0)


def test_committed_memory_is_the_last_word() -> None:
    """`PrivateUsage` is the last counter; `PagefileUsage`, two before it, has the same value."""
    record = bytearray(records.memory_record(8))
    record[72:80] = (123_456).to_bytes(8, "little")
    assert records.read_committed(record, 8) == 123_456
    record[56:64] = (234_567).to_bytes(8, "little")
    assert records.read_committed(record, 8) == 234_567


counts = st.none() | st.integers(1, 2**31)
limits = st.builds(JobLimits, counts, counts, counts, st.booleans(), st.booleans())


@given(limits, st.sampled_from([4, 8]))
def test_limits_survive_packing(value: JobLimits, word: int) -> None:
    """Reading packed limits gives the same limits."""
    assert records.read_limits(records.limits_record(value, word), word) == value


@given(limits, limits, limits)
def test_tightness_is_an_order(one: JobLimits, two: JobLimits, three: JobLimits) -> None:
    """`lacks` is reflexive and transitive."""
    assert not one.lacks(one)
    if not one.lacks(two) and not two.lacks(three):
        assert not one.lacks(three)


@given(st.integers(0, 1 << 80), st.sampled_from([4, 8]))
def test_what_is_too_large_for_its_field_is_tightened(value: int, word: int) -> None:
    """No value overflows its field, and what is read back is never looser than requested."""
    asked = JobLimits(value, value, value)
    assert records.read_limits(records.limits_record(asked, word), word).lacks(asked) == ()


def test_either_breakaway_counts() -> None:
    """Silent breakaway counts as breakaway."""
    record = bytearray(records.limits_record(JobLimits(1, None, None), 8))
    record[16:20] = (0x8 | 0x2000 | 0x1000).to_bytes(4, "little")
    found = records.read_limits(record, 8)
    assert found.breakaway
    assert found.lacks(JobLimits(1, None, None)) == ("no breakaway",)


def test_a_limit_without_its_flag_is_ignored() -> None:
    """A value without its flag isn't in force."""
    record = bytearray(records.limits_record(JobLimits(1, 4096, 5), 8))
    record[16:20] = bytes(4)
    assert records.read_limits(record, 8) == JobLimits(None, None, None, kill_on_close=False)
