"""A log of several segments, to tamper with."""

import pytest

from tests.audit.written import write_log


@pytest.fixture
def write(tmp_path):
    """Writes a log of 40 events in several segments: `write(key=…, name=…)`."""

    def make(key=b"", name="audit.jsonl"):
        return write_log(tmp_path / name, key)

    return make
