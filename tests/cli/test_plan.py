"""`nyx plan`: rule by rule what would be granted."""

import json
import re
import socket
from dataclasses import fields

import pytest

from nyx_core.sandbox import LayerReport, LayerState, SandboxReport
from nyx_stream.cli.layers import RULE_KINDS, layer_of_limit, layer_of_rule
from nyx_stream.isolation.remote.wire import confinement
from nyx_stream.policy import Limits


def test_every_rule_has_its_status_and_lines(nyx, case):
    """Asked, granted by which line, denied by which line, and what is not granted."""
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)
    found = {
        (rule["kind"], rule["asked"].rsplit("/", 1)[-1]): (
            rule["status"],
            [by["at"] for by in rule["granted_by"]],
            [by["at"] for by in rule["denied_by"]],
        )
        for rule in plan["rules"]
    }
    assert found == {
        ("connect", "[::1]:8080"): ("granted", ["policy.toml:3"], []),
        ("request", "**"): ("partly", ["policy.toml:2"], []),
        ("read", "data"): ("refused", [], []),
        ("read", "zoneinfo"): ("refused", [], []),
        ("write", "weather"): ("partly", ["policy.toml:4"], ["policy.toml:8"]),
        ("env", "TZ"): ("granted", [], []),
        ("env", "LANG"): ("refused", [], []),
    }
    assert len(plan["not_granted"]) == 5
    assert plan["env"] == ["TZ"]


def test_limits_say_who_set_them(nyx, case):
    """A limit comes from the manifest where it asks for less, from the policy, or is the default."""
    case.policy.write_text('[limits]\nmemory = "32MiB"\ncall_timeout = "9s"\n', encoding="utf-8")
    limits = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)["limits"]
    assert limits["call_timeout"] == {"value": "5s", "from": "plugin.toml", "layer": "host"}
    assert limits["memory"] == {"value": "32MiB", "from": "policy", "layer": "nothing"}
    assert limits["queue"]["from"] == "default"


def test_the_text_lists_what_is_missing(nyx, case):
    """A reader sees what was asked for and not granted, with the author's reason."""
    out = nyx("plan", case.plugin, *case.options()).out
    assert "weather 1.2.0 at level inline" in out
    assert 'request GET https://api.met.no/**: only in part ("reads forecasts")' in out
    assert "env LANG: not at all" in out


def test_a_plugin_that_asks_for_nothing_is_planned_too(nyx, case):
    """No rules is an answer, not an error."""
    case.write("plugin.toml", 'id = "weather"\nversion = "1"\nentry = "weather:Weather"\n')
    done = nyx("plan", case.plugin, *case.options())
    assert done.code == 0
    assert "It asks for nothing." in done.out


@pytest.mark.parametrize("level", ["inline", "process", "container"])
def test_every_rule_and_limit_has_a_layer_at_every_level(level):
    """No kind of rule and no limit is left out of the table, and only the kernel takes over from the guard."""
    assert {layer_of_rule(kind, level) for kind in RULE_KINDS} <= {"guard", "guard+kernel"}
    layers = {field.name: layer_of_limit(field.name, level) for field in fields(Limits)}
    assert set(layers.values()) <= {"guard", "host", "kernel", "guard+kernel", "nothing"}
    assert layers["open_files"].startswith("guard"), "the files capability counts what is open"
    if level != "inline":
        assert "nothing" not in layers.values()


def test_unknown_names_have_no_layer():
    """A rule kind or limit that does not exist is a fault of the caller."""
    with pytest.raises(ValueError, match="no kind of rule"):
        layer_of_rule("listen", "inline")
    with pytest.raises(ValueError, match="no limit"):
        layer_of_limit("patience", "inline")


def test_credentials_are_planned_by_their_source(nyx, case, monkeypatch):
    """The plan says which header goes where and comes from what, and never what it is."""
    monkeypatch.setenv("NYX_TEST_TOKEN", "s3cr3t-of-the-operator")
    bound = '[[credentials]]\nrule = "https://api.met.no/**"\nheader = "X-Key"\nvalue = "env:NYX_TEST_TOKEN"\n'
    case.policy.write_text(bound, encoding="utf-8")
    out = nyx("plan", case.plugin, *case.options()).out
    assert "Credential: X-Key from env:NYX_TEST_TOKEN for https://api.met.no/** (policy.toml:2)" in out
    (planned,) = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)["credentials"]
    assert (planned["header"], planned["from"]) == ("X-Key", "env:NYX_TEST_TOKEN")
    assert "s3cr3t" not in out


def test_rules_on_trial_are_planned_apart(nyx, case):
    """What is let pass for report only is no grant, and is listed for itself."""
    trial = '[[rules]]\nmode = "report"\n[rules.allow]\nrequest = ["https://api.met.no/**"]\n'
    case.policy.write_text(trial + '[rules.deny]\nconnect = ["a.example"]\n', encoding="utf-8")
    out = nyx("plan", case.plugin, *case.options()).out
    assert "Report only: allow https://api.met.no/** (policy.toml:4)" in out
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)
    assert [row["verdict"] for row in plan["report_only"]] == ["allow", "deny"]
    assert {row["status"] for row in plan["rules"]} == {"refused"}


def test_why_names_the_line_of_a_rule_on_trial(nyx, case):
    """A would-be denial is allowed, says so, and leads to its line."""
    case.policy.write_text('[[rules]]\nmode = "report"\n[rules.allow]\nconnect = ["a.example"]\n', encoding="utf-8")
    done = nyx("why", "connect", "a.example:1", "--policy", case.policy)
    assert done.code == 0
    assert "allowed: report only: no rule allows it" in done.out
    assert "(policy.toml:4)" in done.out


def lacking(*names):
    """A survey of a machine that can do everything but these layers."""
    layers = [
        LayerReport(name, LayerState.UNAVAILABLE, f"no {name}: ENOSYS", "a newer kernel")
        if name in names
        else LayerReport(name, LayerState.ACTIVE, "can be had")
        for name in confinement.REQUIRED_LAYERS
    ]
    return lambda: SandboxReport("linux", "1", "x86_64", layers=tuple(layers))


def test_at_level_process_the_kernel_stands_beside_what_it_enforces(nyx, case, monkeypatch):
    """Every rule, and the limits that bound the process, not the framework."""
    monkeypatch.setattr(confinement, "probe", lacking())
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert {rule["layer"] for rule in plan["rules"]} == {"guard+kernel"}
    held = {name for name, limit in plan["limits"].items() if "kernel" in limit["layer"]}
    assert held == {"memory", "processes", "open_files", "cpu_time"}
    assert (plan["loads_here"], plan["not_enforced"]) == (True, [])
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert re.search(r"^connect .* guard\+kernel\s*$", out, re.MULTILINE)
    assert re.search(r"^memory .* kernel\s*$", out, re.MULTILINE)


def test_a_machine_that_cannot_seal_is_told_of_before_anything_is_loaded(nyx, case, monkeypatch):
    """Under degrade = "refuse" the plugin would not load; the plan names what is missing and what would provide it."""
    monkeypatch.setattr(confinement, "probe", lacking("landlock"))
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert 'It cannot be loaded here, unless the policy says degrade = "allow"' in out
    assert "  landlock: no landlock: ENOSYS; needs a newer kernel" in out
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert (plan["degrade"], plan["loads_here"]) == ("refuse", False)
    assert plan["not_enforced"] == [{"layer": "landlock", "reason": "no landlock: ENOSYS; needs a newer kernel"}]
    assert "cannot be loaded" not in nyx("plan", case.plugin, *case.options()).out


@pytest.mark.parametrize(
    ("missing", "by_guard_alone"),
    [
        (["landlock"], {"read", "write"}),
        (["seccomp"], {"connect", "request", "read", "write"}),
        (["environment"], {"env"}),
        (["limits"], set()),
    ],
)
def test_what_a_degraded_process_does_not_enforce_is_not_claimed(nyx, case, monkeypatch, missing, by_guard_alone):
    """With degrade = "allow" the kernel stands beside no rule and no limit that the missing layer was for."""
    monkeypatch.setattr(confinement, "probe", lacking(*missing))
    case.policy.write_text('degrade = "allow"\n' + case.policy.read_text(encoding="utf-8"), encoding="utf-8")
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert {rule["kind"] for rule in plan["rules"] if rule["layer"] == "guard"} == by_guard_alone
    limits = {name for name, limit in plan["limits"].items() if "kernel" in limit["layer"]}
    assert bool(limits) is ("limits" not in missing)
    assert plan["loads_here"]
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert f'Not enforced here, as degrade = "allow" in the policy lets pass:\n  {missing[0]}: ' in out


def test_a_system_without_sealed_processes_says_what_it_lacks(nyx, case, monkeypatch):
    """Where not even a worker can be made, degrading changes nothing."""
    monkeypatch.delattr(socket, "SCM_RIGHTS")
    assert "It cannot be loaded here: " in nyx("plan", case.plugin, *case.options(), "--isolation", "process").out


def test_a_diff_of_two_versions_says_what_is_wanted_anew(nyx, case, tmp_path):
    """Two plugin folders, or two manifests: each change with its line, and exit code 1 if the new one wants more."""
    new = tmp_path / "new"
    new.mkdir()
    text = (case.plugin / "plugin.toml").read_text(encoding="utf-8")
    (new / "plugin.toml").write_text(
        text.replace("1.2.0", "1.3.0").replace("api.met.no/**", "api.met.no/v1/**").replace('"TZ", ', ""),
        encoding="utf-8",
    )
    done = nyx("plan", "--diff", case.plugin, new)
    assert done.code == 0
    assert "old: the manifest of weather 1.2.0" in done.out
    assert "Wants no more." in done.out
    assert [line.split()[:3] for line in done.out.splitlines() if line.startswith(("narrowed", "removed"))] == [
        ["narrowed", "allow", "request"],
        ["removed", "env", "TZ"],
    ]
    done = nyx("plan", "--diff", new / "plugin.toml", case.plugin, "--json")
    assert done.code == 1
    document = json.loads(done.out)
    assert document["wants_more"] is True
    assert document["old"]["version"] == "1.3.0"
    assert document["changes"] == [
        {
            "section": "allow",
            "kind": "request",
            "what": "widened",
            "old": "GET https://api.met.no/v1/**",
            "new": "GET https://api.met.no/**",
            "more": True,
            "at": "plugin.toml:5",
        },
        {"section": "env", "kind": "TZ", "what": "added", "old": None, "new": "TZ", "more": True, "at": None},
    ]


def test_a_diff_of_two_policies(nyx, case, tmp_path):
    """Files that are no manifests are policies; nothing that changes is an answer too."""
    new = tmp_path / "new.toml"
    new.write_text(case.policy.read_text(encoding="utf-8").replace('path = ["$DATA/secret"]', ""), encoding="utf-8")
    done = nyx("plan", "--diff", case.policy, new)
    assert done.code == 1
    assert "Wants more by 1 of 1 changes." in done.out
    done = nyx("plan", "--diff", new, new)
    assert (done.code, done.out.splitlines()[-1]) == (0, "Nothing changes.")


def test_a_diff_that_cannot_be_made_is_said(nyx, case, tmp_path):
    """Unlike things, other arguments besides, files that are wrong or not there: each with its own exit code."""
    assert nyx("plan", "--diff", case.plugin, case.policy).code == 2
    assert nyx("plan", case.plugin, "--diff", case.policy, case.policy).code == 2
    assert nyx("plan", case.plugin).code == 2
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[allow]\nconnect = 3\n", encoding="utf-8")
    assert nyx("plan", "--diff", case.policy, wrong).code == 3
    assert nyx("plan", "--diff", case.policy, tmp_path / "none").code == 4


def test_what_is_optional_says_what_it_takes(nyx, case):
    """A person, a line of the policy, or nothing that helps; and it is not missed."""
    rules = ("a", "b", "c")
    entries = ", ".join(f'{{rule = "{name}.example", optional = true, why = "w{name}"}}' for name in rules)
    case.write("plugin.toml", f'id = "w"\nversion = "1"\nentry = "w:W"\n[permissions]\nconnect = [{entries}]\n')
    case.policy.write_text('[on_request]\nconnect = ["b.example"]\n[deny]\nconnect = ["c.example"]\n', encoding="utf-8")
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)
    assert [(row["asked"], row["when"], row["why"]) for row in plan["optional"]] == [
        ("a.example", "if it asks and the host's approver says yes", "wa"),
        ("b.example", "as soon as it asks (policy.toml:2)", "wb"),
        ("c.example", "never: denied by the rule c.example", "wc"),
    ]
    assert plan["not_granted"] == []
    out = nyx("plan", case.plugin, *case.options()).out
    assert 'Optional: connect b.example: as soon as it asks (policy.toml:2) ("wb")' in out
    assert "Asked and not granted: nothing" in out
