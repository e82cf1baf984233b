"""A fixture that writes a log of several segments."""

import pytest

from tests.audit.sample_log import write_log


@pytest.fixture
def write(tmp_path):
    """Writes a log of 40 events in several segments: `write(key=…, name=…)`."""

    def make(key=b"", name="audit.jsonl"):
        return write_log(tmp_path / name, key)

    return make
