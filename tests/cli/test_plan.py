"""`nyx plan`: what would be granted, rule by rule."""

import json
import re
import socket
from dataclasses import fields

import pytest

from nyx_core.sandbox import LayerReport, LayerState, SandboxReport
from nyx_stream.cli.plan import RULE_KINDS, layer_of_limit, layer_of_rule
from nyx_stream.isolation.remote.wire import confinement
from nyx_stream.policy import Limits


def test_every_rule_has_its_status_and_sources(nyx, case):
    """Each rule has its status, the lines that grant and deny it, and is listed if it is not granted."""
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


def test_limits_have_their_origin(nyx, case):
    """A limit comes from the manifest if it requests less, from the policy, or is the default."""
    case.policy.write_text('[limits]\nmemory = "32MiB"\ncall_timeout = "9s"\n', encoding="utf-8")
    limits = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)["limits"]
    assert limits["call_timeout"] == {"value": "5s", "from": "plugin.toml", "layer": "host"}
    assert limits["memory"] == {"value": "32MiB", "from": "policy", "layer": "nothing"}
    assert limits["queue"]["from"] == "default"


def test_the_text_lists_what_is_not_granted(nyx, case):
    """Permissions that are not granted are listed with the author's reason."""
    out = nyx("plan", case.plugin, *case.options()).out
    assert "weather 1.2.0 at level inline" in out
    assert 'request GET https://api.met.no/**: only in part ("reads forecasts")' in out
    assert "env LANG: not at all" in out


def test_a_plugin_that_requests_nothing(nyx, case):
    """A manifest without permissions is not an error."""
    case.write("plugin.toml", 'id = "weather"\nversion = "1"\nentry = "weather:Weather"\n')
    done = nyx("plan", case.plugin, *case.options())
    assert done.code == 0
    assert "It requests nothing." in done.out


@pytest.mark.parametrize("level", ["inline", "process", "container"])
def test_every_rule_and_limit_has_a_layer_at_every_level(level):
    """The table has every kind of rule and every limit; rules are enforced by the guard, with or without the kernel."""
    assert {layer_of_rule(kind, level) for kind in RULE_KINDS} <= {"guard", "guard+kernel"}
    layers = {field.name: layer_of_limit(field.name, level) for field in fields(Limits)}
    assert set(layers.values()) <= {"guard", "host", "kernel", "guard+kernel", "nothing"}
    assert layers["open_files"].startswith("guard"), "the files capability counts what is open"
    if level != "inline":
        assert "nothing" not in layers.values()


def test_unknown_names_are_errors():
    """An unknown kind of rule or limit is a ValueError."""
    with pytest.raises(ValueError, match="isn't a kind of rule"):
        layer_of_rule("listen", "inline")
    with pytest.raises(ValueError, match="isn't a limit"):
        layer_of_limit("height", "inline")


def test_credentials_are_listed_without_their_values(nyx, case, monkeypatch):
    """The plan has the header, its source and the rule, but never the value."""
    monkeypatch.setenv("NYX_TEST_TOKEN", "s3cr3t-of-the-operator")
    bound = '[[credentials]]\nrule = "https://api.met.no/**"\nheader = "X-Key"\nvalue = "env:NYX_TEST_TOKEN"\n'
    case.policy.write_text(bound, encoding="utf-8")
    out = nyx("plan", case.plugin, *case.options()).out
    assert "Credential: X-Key from env:NYX_TEST_TOKEN for https://api.met.no/** (policy.toml:2)" in out
    (planned,) = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)["credentials"]
    assert (planned["header"], planned["from"]) == ("X-Key", "env:NYX_TEST_TOKEN")
    assert "s3cr3t" not in out


def test_report_only_rules_are_listed_separately(nyx, case):
    """A report-only rule grants nothing and has its own list."""
    trial = '[[rules]]\nmode = "report"\n[rules.allow]\nrequest = ["https://api.met.no/**"]\n'
    case.policy.write_text(trial + '[rules.deny]\nconnect = ["a.example"]\n', encoding="utf-8")
    out = nyx("plan", case.plugin, *case.options()).out
    assert "Report only: allow https://api.met.no/** (policy.toml:4)" in out
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)
    assert [row["verdict"] for row in plan["report_only"]] == ["allow", "deny"]
    assert {row["status"] for row in plan["rules"]} == {"refused"}


def test_why_names_the_line_of_a_report_only_rule(nyx, case):
    """An action that only a report-only rule allows is allowed, with the reason and the line."""
    case.policy.write_text('[[rules]]\nmode = "report"\n[rules.allow]\nconnect = ["a.example"]\n', encoding="utf-8")
    done = nyx("why", "connect", "a.example:1", "--policy", case.policy)
    assert done.code == 0
    assert "allowed: report only: no rule allows it" in done.out
    assert "(policy.toml:4)" in done.out


def lacking(*names):
    """Returns a survey of a machine that has every layer except these."""
    layers = [
        LayerReport(name, LayerState.UNAVAILABLE, f"no {name}: ENOSYS", "a newer kernel")
        if name in names
        else LayerReport(name, LayerState.ACTIVE, "available")
        for name in confinement.REQUIRED_LAYERS
    ]
    return lambda: SandboxReport("linux", "1", "x86_64", layers=tuple(layers))


def test_at_level_process_the_kernel_is_listed_as_a_layer(nyx, case, monkeypatch):
    """The kernel enforces every rule, and the limits of the process, but not those of the framework."""
    monkeypatch.setattr(confinement, "probe", lacking())
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert {rule["layer"] for rule in plan["rules"]} == {"guard+kernel"}
    held = {name for name, limit in plan["limits"].items() if "kernel" in limit["layer"]}
    assert held == {"memory", "processes", "open_files", "cpu_time"}
    assert (plan["loads_here"], plan["not_enforced"]) == (True, [])
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert re.search(r"^connect .* guard\+kernel\s*$", out, re.MULTILINE)
    assert re.search(r"^memory .* kernel\s*$", out, re.MULTILINE)


def test_missing_layers_are_reported_before_anything_is_loaded(nyx, case, monkeypatch):
    """With degrade = "refuse" the plugin would not load; the plan names missing layers and what would provide them."""
    monkeypatch.setattr(confinement, "probe", lacking("landlock"))
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert 'It cannot be loaded on this machine unless the policy has degrade = "allow"' in out
    assert "  landlock: no landlock: ENOSYS; needs a newer kernel" in out
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert (plan["degrade"], plan["loads_here"]) == ("refuse", False)
    assert plan["not_enforced"] == [{"layer": "landlock", "reason": "no landlock: ENOSYS; needs a newer kernel"}]
    assert "cannot be loaded" not in nyx("plan", case.plugin, *case.options()).out


@pytest.mark.parametrize(
    ("missing", "by_guard_only"),
    [
        (["landlock"], {"read", "write"}),
        (["seccomp"], {"connect", "request", "read", "write"}),
        (["environment"], {"env"}),
        (["limits"], set()),
    ],
)
def test_a_degraded_process_does_not_list_the_kernel_for_missing_layers(nyx, case, monkeypatch, missing, by_guard_only):
    """With degrade = "allow" the kernel is not listed for rules and limits that need the missing layer."""
    monkeypatch.setattr(confinement, "probe", lacking(*missing))
    case.policy.write_text('degrade = "allow"\n' + case.policy.read_text(encoding="utf-8"), encoding="utf-8")
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--isolation", "process", "--json").out)
    assert {rule["kind"] for rule in plan["rules"] if rule["layer"] == "guard"} == by_guard_only
    limits = {name for name, limit in plan["limits"].items() if "kernel" in limit["layer"]}
    assert bool(limits) is ("limits" not in missing)
    assert plan["loads_here"]
    out = nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    assert f'Not enforced on this machine, which the policy accepts with degrade = "allow":\n  {missing[0]}: ' in out


def test_a_system_without_sealed_processes_has_its_own_message(nyx, case, monkeypatch):
    """If a worker cannot be created, degrading makes no difference."""
    monkeypatch.delattr(socket, "SCM_RIGHTS")
    assert (
        "It cannot be loaded on this machine: "
        in nyx("plan", case.plugin, *case.options(), "--isolation", "process").out
    )


def test_a_diff_of_two_versions_lists_the_changes(nyx, case, tmp_path):
    """Each change between two folders or manifests has its line; the exit code is 1 if the new one wants more."""
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
    assert "No change wants more." in done.out
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
    """A file that is not a manifest is a policy. Two equal policies have no changes."""
    new = tmp_path / "new.toml"
    new.write_text(case.policy.read_text(encoding="utf-8").replace('path = ["$DATA/secret"]', ""), encoding="utf-8")
    done = nyx("plan", "--diff", case.policy, new)
    assert done.code == 1
    assert "1 of 1 change wants more." in done.out
    done = nyx("plan", "--diff", new, new)
    assert (done.code, done.out.splitlines()[-1]) == (0, "No changes.")


def test_a_diff_that_is_not_possible_is_an_error(nyx, case, tmp_path):
    """A manifest and a policy, additional arguments, and wrong or missing files each have their exit code."""
    assert nyx("plan", "--diff", case.plugin, case.policy).code == 2
    assert nyx("plan", case.plugin, "--diff", case.policy, case.policy).code == 2
    assert nyx("plan", case.plugin).code == 2
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[allow]\nconnect = 3\n", encoding="utf-8")
    assert nyx("plan", "--diff", case.policy, wrong).code == 3
    assert nyx("plan", "--diff", case.policy, tmp_path / "none").code == 4


def test_optional_permissions_have_their_condition(nyx, case):
    """An approver, a line of the policy, or a denial decides; an optional permission is not listed as missing."""
    rules = ("a", "b", "c")
    entries = ", ".join(f'{{rule = "{name}.example", optional = true, why = "w{name}"}}' for name in rules)
    case.write("plugin.toml", f'id = "w"\nversion = "1"\nentry = "w:W"\n[permissions]\nconnect = [{entries}]\n')
    case.policy.write_text('[on_request]\nconnect = ["b.example"]\n[deny]\nconnect = ["c.example"]\n', encoding="utf-8")
    plan = json.loads(nyx("plan", case.plugin, *case.options(), "--json").out)
    assert [(row["asked"], row["when"], row["why"]) for row in plan["optional"]] == [
        ("a.example", "on request, if the host's approver agrees", "wa"),
        ("b.example", "on request (policy.toml:2)", "wb"),
        ("c.example", "never: denied by the rule c.example", "wc"),
    ]
    assert plan["not_granted"] == []
    out = nyx("plan", case.plugin, *case.options()).out
    assert 'Optional: connect b.example: on request (policy.toml:2) ("wb")' in out
    assert "Requested but not granted: nothing" in out
