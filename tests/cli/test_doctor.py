"""`nyx doctor`: the sandbox layers of this machine."""

import json

from nyx_core.sandbox import probe


def test_it_prints_the_survey(nyx):
    """The table has every layer of the platform, and the JSON is the survey."""
    done = nyx("doctor")
    assert (done.code, done.err) == (0, "")
    survey = probe()
    for layer in survey.layers:
        assert layer.name in done.out
    answer = json.loads(nyx("doctor", "--json").out)
    assert [layer["name"] for layer in answer["layers"]] == [layer.name for layer in survey.layers]
    assert answer["platform"] == survey.platform
