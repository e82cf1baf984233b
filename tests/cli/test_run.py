"""`nyx run`: one call in a real host."""

import json
import logging

import pytest

from nyx_stream.audit import read_log


def test_a_result_is_printed_as_json(nyx, case, monkeypatch):
    """The call gets its arguments and granted environment, and writes its file."""
    monkeypatch.setenv("TZ", "UTC")
    done = nyx("run", case.plugin, "forecast", "city=oslo", *case.options())
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"city": "oslo", "zone": "UTC"}
    assert (case.data / "weather" / "last.txt").read_text() == "oslo"


def test_values_are_json_or_text(nyx, case):
    """A value that is valid JSON is parsed; any other is text."""
    values = ("a=1", "b=[1, 2]", 'c="1"', "d=x=y", "e=NaN", "f=null", "g={not json")
    done = nyx("run", case.plugin, "echo", *values, *case.options(), "--json")
    assert json.loads(done.out) == ["a:int", "b:list", "c:str", "d:str", "e:str", "f:NoneType", "g:str"]
    assert done.out.count("\n") == 1


def test_a_stream_is_printed_line_by_line(nyx, case):
    """Each item is one JSON document on a line."""
    done = nyx("run", case.plugin, "count", "to=3", *case.options())
    assert done.out == "0\n1\n2\n"


def test_decisions_go_to_the_audit_log(nyx, case, tmp_path):
    """The log has both decisions; the denied call has exit code 1 and an explanation."""
    log = tmp_path / "audit.jsonl"
    nyx("run", case.plugin, "forecast", "city=oslo", *case.options(), "--audit", log)
    done = nyx("run", case.plugin, "fetch", *case.options(), "--audit", log)
    assert done.code == 1
    assert done.out == ""
    assert "nyx: weather: http GET https://api.met.no/v2/x denied: no rule allows it" in done.err
    assert "widen policy.toml:2 to what plugin.toml:5 asks" in done.err
    events = [(event.capability, event.allowed) for event in read_log(log) if event.layer == "guard"]
    assert events == [("files", True), ("http", False)]


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (("nothing",), 5, "it doesn't export a method 'nothing'"),
        (("forecast",), 5, "forecast: city: Missing required argument"),
        (("forecast", "city=[1]"), 5, "forecast: city:"),
        (("fail",), 5, "on\\u000apurpose"),
        (("forecast", "city"), 2, "an argument must be key=value"),
        (("forecast", "city=a", "city=b"), 2, "city is given twice"),
        (("forecast", "city=a", "--isolation", "moon"), 2, "moon"),
    ],
)
def test_a_failed_call_prints_the_reason_to_stderr(nyx, case, call, code, message):
    """It has its exit code and the reason, without a traceback or output on stdout."""
    done = nyx("run", case.plugin, *call, *case.options())
    assert done.code == code
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_plugin_that_does_not_load_has_its_own_exit_code(nyx, case):
    """The exit code is 4 for an import error and for a missing folder."""
    case.write("weather.py", "raise RuntimeError('no')")
    assert nyx("run", case.plugin, "x", *case.options()).code == 4
    assert nyx("run", case.plugin / "nowhere", "x", *case.options()).code == 4


def test_a_call_that_times_out_has_the_exit_code_of_limits(nyx, case):
    """The exit code is 6."""
    case.write(
        "weather.py",
        """
        import asyncio
        from nyx_stream import Plugin, export
        class Weather(Plugin):
            @export
            async def forever(self):
                await asyncio.Event().wait()
        """,
    )
    case.policy.write_text('[allow]\nwrite = ["$DATA"]\n[limits]\ncall_timeout = "50ms"\n', encoding="utf-8")
    done = nyx("run", case.plugin, "forever", *case.options())
    assert done.code == 6
    assert "took longer" in done.err


def test_debug_logging_shows_each_decision(nyx, case, monkeypatch):
    """`NYX_LOG=debug` logs each decision and its rule to stderr."""
    monkeypatch.setenv("NYX_LOG", "debug")
    done = nyx("run", case.plugin, "forecast", "city=oslo", *case.options())
    assert "weather files write last.txt allowed: allowed by the rule [guard, rule " in done.err
    assert (
        "weather request GET https://api.met.no/**: partly, by GET https://api.met.no/v1/** (policy.toml:2)" in done.err
    )
    monkeypatch.setenv("NYX_LOG", "loud")
    assert nyx("schema", "policy").code == 2


def test_logging_is_restored_after_a_command(nyx, case, monkeypatch):
    """The logger `nyx` is unchanged for programs that call `main` in their own process."""
    logger = logging.getLogger("nyx")
    before = (list(logger.handlers), logger.level, logger.propagate)
    for level in ("debug", "loud"):
        monkeypatch.setenv("NYX_LOG", level)
        for arguments in (("fetch", *case.options()), ("echo", *case.options()), ("--help",), ("nothing",)):
            nyx("run", case.plugin, *arguments)
            assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_stderr_is_redacted_like_the_audit_log(nyx, case, monkeypatch):
    """Log lines and the final message contain no query, fragment or password of a URL."""
    case.write(
        "weather.py",
        """
        from nyx_stream import Plugin, export
        class Weather(Plugin):
            @export
            async def fetch(self):
                self.log.warning("asking https://anna:pass@api.met.no/v2/x?token=hunter2")
                await self.http.get("https://api.met.no/v2/x?token=hunter2#piece")
        """,
    )
    monkeypatch.setenv("NYX_LOG", "debug")
    done = nyx("run", case.plugin, "fetch", *case.options())
    logged, _, message = done.err.partition("\nnyx: ")
    assert "weather: http GET https://api.met.no/v2/x?… denied: no rule allows it" in message
    assert "fix:" in message
    assert "weather http GET https://api.met.no/v2/x?… denied: no rule allows it [guard, rule -]" in logged
    assert "asking https://…@api.met.no/v2/x?…" in logged
    assert "Traceback" in logged
    assert not [word for word in ("hunter2", "piece", "pass", "anna") if word in done.err]


def test_metrics_are_written_to_a_file(nyx, case, tmp_path, monkeypatch):
    """The file is complete and readable by other users, also after a failed call. A missing extra is a usage error."""
    file = tmp_path / "weather.prom"
    done = nyx("run", case.plugin, "forecast", "city=oslo", *case.options(), "--metrics", file)
    assert (done.code, done.err) == (0, "")
    assert 'nyx_plugin_calls_total{plugin="weather"} 1.0' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert nyx("run", case.plugin, "fail", *case.options(), "--metrics", file).code == 5
    assert 'nyx_plugin_call_errors_total{plugin="weather"} 1.0' in file.read_text()
    assert [path.name for path in tmp_path.iterdir() if "prom" in path.name or "metrics" in path.name] == [file.name]
    done = nyx("run", case.plugin, "forecast", "city=oslo", *case.options(), "--metrics", tmp_path / "no" / "file")
    assert done.code == 7
    monkeypatch.setattr("nyx_stream.cli.run.find_spec", lambda name: None)
    done = nyx("run", case.plugin, "forecast", "city=oslo", *case.options(), "--metrics", file)
    assert (done.code, done.out) == (2, "")
    assert "nyx-sandbox[prometheus]" in done.err


def test_every_result_can_be_printed(nyx, case):
    """Bytes, numbers that JSON lacks, and control characters are printed as plain JSON."""
    case.write(
        "weather.py",
        """
        from typing import Any
        from nyx_stream import Plugin, export
        class Weather(Plugin):
            @export
            async def odd(self) -> Any:
                return [b"\\xff", float("nan"), {1, 2}, "\\u202e\\x7f", "\\U000e0001", "Gr\\u00fc\\u00dfe"]
        """,
    )
    done = nyx("run", case.plugin, "odd", *case.options(), "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == ["_w==", None, [1, 2], "\u202e\x7f", "\U000e0001", "Gr\u00fc\u00dfe"]
    assert not {"\u202e", "\x7f", "\U000e0001"} & set(done.out)
    assert "Gr\u00fc\u00dfe" in done.out


def test_files_that_cannot_be_opened_have_their_exit_code(nyx, case, tmp_path):
    """A missing policy, or an audit log that cannot be opened, has exit code 7, and nothing is called."""
    missing = nyx(
        "run", case.plugin, "forecast", "city=oslo", "--policy", tmp_path / "nowhere", "--data-dir", case.data
    )
    unwritable = nyx("run", case.plugin, "forecast", "city=oslo", *case.options(), "--audit", tmp_path / "no" / "log")
    assert (missing.code, unwritable.code) == (7, 7)
    assert "nowhere" in missing.err
    assert not (case.data / "weather" / "last.txt").exists()
