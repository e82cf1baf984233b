"""Policy and manifest files: what they give, and how their faults are told."""

import json
from pathlib import Path

import jsonschema
import pytest

from nyx_stream.errors import ManifestError, PolicyError
from nyx_stream.plugin_sandbox import NetworkDenied, SandboxGuard, SandboxPolicy
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.schema import manifest_schema, policy_schema

MANIFEST = """\
id = "weather"
version = "1.2.0"
entry = "weather:Weather"
[permissions]
connect = ["api.example.com", "*.cdn.example.com"]
request = ["GET https://api.met.no/v1/**"]
read = ["./data", "/usr/share/zoneinfo"]
write = ["$DATA"]
env = ["TZ", "LANG"]
[permissions.why]
request = "reads forecasts"
[limits]
memory = "64MiB"
call_timeout = "5s"
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest_is_read_without_importing_anything(tmp_path: Path) -> None:
    """Every table of a manifest becomes values, with the line each rule came from."""
    manifest = Manifest.from_toml(write(tmp_path, "plugin.toml", MANIFEST))
    assert (manifest.id, manifest.version, manifest.entry) == ("weather", "1.2.0", "weather:Weather")
    assert [(rule.text, str(rule.source)) for rule in manifest.request] == [
        ("GET https://api.met.no/v1/**", "plugin.toml:6")
    ]
    assert [(rule.prefix, rule.mode) for rule in manifest.paths] == [
        ("$PLUGIN/data", "r"),
        ("/usr/share/zoneinfo", "r"),
        ("$DATA", "rw"),
    ]
    assert dict(manifest.why) == {"request": "reads forecasts"}


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """Each with file, line and a caret under the place."""
    path = write(
        tmp_path,
        "policy.toml",
        '[allow]\nconnect = ["ok.example", "b.com:99999",\n  "*.com"]\nwrite = ["rel"]\n[limits]\nmemory = "much"\n',
    )
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(path)
    assert [(problem.where, problem.line) for problem in caught.value.problems] == [
        ("policy.toml", 2),
        ("policy.toml", 3),
        ("policy.toml", 4),
        ("policy.toml", 6),
    ]
    first = str(caught.value.problems[0]).splitlines()
    assert first[0] == "policy.toml:2: a port is a number from 1 to 65535"
    assert first[1][first[2].index("^")] == "9"


def test_a_fault_in_shape_hides_no_other(tmp_path: Path) -> None:
    """Unknown keys, wrong types and missing keys are told together with the rules and limits that do not parse."""
    policy = write(
        tmp_path,
        "policy.toml",
        'x = 1\n[allow]\nconnect = ["*"]\nrequest = 5\nconnekt = []\n'
        '[deny]\npath = ["../x"]\n[limits]\nmemory = "much"\n',
    )
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(policy)
    assert {problem.line for problem in caught.value.problems} == {1, 3, 4, 5, 7, 9}
    manifest = write(
        tmp_path, "plugin.toml", 'id = "Not An Id"\nversion = "1"\n[permissions]\nconnect = ["*.com"]\nwhy = 3\n'
    )
    with pytest.raises(ManifestError) as refused:
        Manifest.from_toml(manifest)
    assert {problem.line for problem in refused.value.problems} == {None, 1, 4, 5}
    assert "entry" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[allow]\nconnekt = []\n", 2, "connekt"),
        ("[alow]\n", 1, "alow"),
        ('[allow]\nconnect = "a.com"\n', 2, "list"),
        ("[allow]\nconnect = [1]\n", 2, "string"),
        ("[limits]\nmemory = -1\n", 2, "memory"),
        ("[limits]\nunknown = 1\n", 2, "unknown"),
        ("[allow\n", 1, "not TOML"),
        ("x = 1\nx = 2\n", 2, "not TOML"),
        ("[allow]\nconnect = [\n", 3, "not TOML"),
    ],
)
def test_a_malformed_policy_names_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    """Unknown keys, wrong types and broken TOML are clear errors with a place."""
    with pytest.raises(PolicyError, match=says) as caught:
        SandboxPolicy.from_toml(write(tmp_path, "policy.toml", text))
    assert caught.value.problems[0].line == line


def test_a_file_that_is_not_utf8_is_a_clear_error(tmp_path: Path) -> None:
    """With the line of the first bad byte."""
    path = tmp_path / "policy.toml"
    path.write_bytes(b'[allow]\nconnect = ["\xff"]\n')
    with pytest.raises(PolicyError, match=r"policy.toml:2: not UTF-8"):
        SandboxPolicy.from_toml(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """The system's own error, which names the path."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SandboxPolicy.from_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('id = "../evil"', "id"),
        ('id = "UPPER"', "id"),
        ('id = "a\\nb"', "id"),
        ('entry = "weather"', "entry"),
        ('entry = "os:system()"', "entry"),
        ('version = ""', "version"),
    ],
)
def test_a_bad_identity_is_refused(tmp_path: Path, line: str, says: str) -> None:
    """An id names a directory and stands in logs: only plain ones pass."""
    key = line.split(" ")[0]
    text = "\n".join(line if row.startswith(f"{key} ") else row for row in MANIFEST.splitlines())
    with pytest.raises(ManifestError, match=says):
        Manifest.from_toml(write(tmp_path, "plugin.toml", text))


def test_the_grant_says_what_is_not_granted(tmp_path: Path) -> None:
    """A row for each thing asked: granted, granted in part, or refused, and by which line of the policy."""
    manifest = Manifest.from_toml(write(tmp_path, "plugin.toml", MANIFEST))
    policy = SandboxPolicy.from_toml(
        write(
            tmp_path,
            "policy.toml",
            """\
[allow]
connect = ["api.example.com", "img.cdn.example.com"]
request = ["https://api.met.no"]
read = ["/usr/share"]
write = ["$DATA"]
env = ["TZ"]
[deny]
request = ["https://api.met.no/v1/admin/**"]
[limits]
memory = "32MiB"
call_timeout = "20s"
""",
        )
    )
    grant = Grant.of(manifest, policy, {"$DATA": "/var/nyx/weather", "$PLUGIN": "/opt/weather"})
    rows = {row.asked: (row.status, [str(rule.source) for rule in row.by]) for row in grant.rows()}
    assert rows == {
        "api.example.com": ("granted", ["policy.toml:2"]),
        "*.cdn.example.com": ("partly", ["policy.toml:2"]),
        "GET https://api.met.no/v1/**": ("partly", ["policy.toml:3"]),
        "/opt/weather/data": ("refused", []),
        "/usr/share/zoneinfo": ("granted", ["policy.toml:4"]),
        "/var/nyx/weather": ("granted", ["policy.toml:5"]),
        "TZ": ("granted", []),
        "LANG": ("refused", []),
    }
    assert [row.asked for row in grant.not_granted()] == [a for a, (status, _) in rows.items() if status != "granted"]
    assert grant.env == ("TZ",)
    assert (grant.limits.memory, grant.limits.call_timeout) == (32 * 2**20, 5.0)


def test_a_request_rule_grants_a_part_of_an_asked_connection(tmp_path: Path) -> None:
    """The guard allows that part, so the plan must not say refused; the reason is the one given for connecting."""
    manifest = Manifest.from_toml(
        write(
            tmp_path,
            "plugin.toml",
            'id = "p"\nversion = "1"\nentry = "p:P"\n[permissions]\nconnect = ["a.example"]\n'
            '[permissions.why]\nconnect = "talks"\n',
        )
    )
    policy = SandboxPolicy.locked_down().allow_request("GET https://a.example/v1/**")
    [row] = Grant.of(manifest, policy, {}).rows()
    assert (row.status, [rule.text for rule in row.by]) == ("partly", ["GET https://a.example/v1/**"])
    guard = SandboxGuard(policy, manifest=manifest)
    assert guard.decide_request("GET", "https://a.example/v1/x").allowed
    with pytest.raises(NetworkDenied, match='"talks"'):
        guard.check_request("GET", "https://a.example/v2/x")


def test_the_schemas_accept_what_the_readers_accept(tmp_path: Path) -> None:
    """Editors check files against the same models that read them."""
    import tomllib

    jsonschema.validate(tomllib.loads(MANIFEST), manifest_schema())
    policy = SandboxPolicy.locked_down().allow_connect_host("a.example").with_limits(memory="1GiB")
    jsonschema.validate(tomllib.loads(policy.to_toml()), policy_schema())
    for schema in (manifest_schema(), policy_schema()):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"unknown": 1}, schema)
        json.dumps(schema)


def test_places_are_found_in_every_layout(tmp_path: Path) -> None:
    """Dotted keys, inline tables and arrays over lines still give a line."""
    text = 'limits.memory = "x"\nallow = { connect = ["*"], read = [\n  "rel"\n] }\n'
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(write(tmp_path, "policy.toml", text))
    assert sorted(str(problem.line) for problem in caught.value.problems) == ["1", "2", "3"]
