"""Policy and manifest files: the values read from them, and how their faults are reported."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from nyx_stream.errors import ManifestError, PolicyError
from nyx_stream.plugin_sandbox import NetworkDenied, SandboxGuard, SandboxPolicy
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.manifest_file import manifest_schema
from nyx_stream.policy.policy_file import policy_schema

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
    """Every table of a manifest becomes values, and each rule has its line."""
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


def test_all_faults_of_a_file_are_reported_together(tmp_path: Path) -> None:
    """Each has a file, a line and a caret."""
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


def test_a_fault_in_shape_hides_no_other_fault(tmp_path: Path) -> None:
    """Unknown keys, wrong types and missing keys are reported together with bad rules and limits."""
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
    """Unknown keys, wrong types and broken TOML are errors with a line."""
    with pytest.raises(PolicyError, match=says) as caught:
        SandboxPolicy.from_toml(write(tmp_path, "policy.toml", text))
    assert caught.value.problems[0].line == line


def test_a_file_that_is_not_utf8_is_a_clear_error(tmp_path: Path) -> None:
    """The error has the line of the first bad byte."""
    path = tmp_path / "policy.toml"
    path.write_bytes(b'[allow]\nconnect = ["\xff"]\n')
    with pytest.raises(PolicyError, match=r"policy.toml:2: not UTF-8"):
        SandboxPolicy.from_toml(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """It is the system's error, which names the path."""
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
    """An id names a directory and appears in logs, so only plain ones are accepted."""
    key = line.split(" ")[0]
    text = "\n".join(line if row.startswith(f"{key} ") else row for row in MANIFEST.splitlines())
    with pytest.raises(ManifestError, match=says):
        Manifest.from_toml(write(tmp_path, "plugin.toml", text))


def test_the_grant_lists_what_is_not_granted(tmp_path: Path) -> None:
    """Each permission has a row: granted, partly granted or refused, with the policy's rules and their lines."""
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
    """The guard allows that part, so the plan must not say refused. The reason is the one given for connecting."""
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
    """The schemas are made from the models that read the files."""
    jsonschema.validate(tomllib.loads(MANIFEST), manifest_schema())
    policy = SandboxPolicy.locked_down().allow_connect_host("a.example").with_limits(memory="1GiB")
    jsonschema.validate(tomllib.loads(policy.to_toml()), policy_schema())
    for schema in (manifest_schema(), policy_schema()):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"unknown": 1}, schema)
        json.dumps(schema)


def test_lines_are_found_in_every_layout(tmp_path: Path) -> None:
    """Faults in dotted keys, inline tables and arrays over several lines have a line."""
    text = 'limits.memory = "x"\nallow = { connect = ["*"], read = [\n  "rel"\n] }\n'
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(write(tmp_path, "policy.toml", text))
    assert sorted(str(problem.line) for problem in caught.value.problems) == ["1", "2", "3"]


OPTIONAL = """\
id = "maps"
version = "1"
entry = "maps:Maps"
[permissions]
connect = [{rule = "a.example"}]
request = ["GET https://b.example/**", {rule = "GET https://c.example/**", optional = true, why = "shows jams"}]
read = [{rule = "/usr", optional = true}]
write = [
  "$DATA",
  {rule = "$DATA/more", optional = true},
]
[permissions.why]
read = "knows the time zones"
"""


def test_a_rule_may_be_a_table_with_options(tmp_path: Path) -> None:
    """Optional rules are read with the others; each has its line and its reason, or that of its kind."""
    manifest = Manifest.from_toml(write(tmp_path, "plugin.toml", OPTIONAL))
    assert [(item.kind, item.rule.text, item.why, str(item.rule.source)) for item in manifest.optional] == [
        ("request", "GET https://c.example/**", "shows jams", "plugin.toml:6"),
        ("read", "/usr", "knows the time zones", "plugin.toml:7"),
        ("write", "$DATA/more", None, "plugin.toml:10"),
    ]
    assert [rule.text for rule in manifest.request] == ["GET https://b.example/**", "GET https://c.example/**"]
    assert [(rule.text, rule.mode) for rule in manifest.paths] == [("/usr", "r"), ("$DATA", "rw"), ("$DATA/more", "rw")]
    bound = manifest.bind({"$DATA": "/d", "$PLUGIN": "/p"})
    assert [item.rule.text for item in bound.optional] == ["GET https://c.example/**", "/usr", "/d/more"]
    jsonschema.validate(tomllib.loads(OPTIONAL), manifest_schema())


def test_an_optional_permission_is_not_reported_as_missing(tmp_path: Path) -> None:
    """It has a row, but isn't among the rows of `not_granted`."""
    manifest = Manifest.from_toml(write(tmp_path, "plugin.toml", OPTIONAL))
    policy = SandboxPolicy.locked_down().allow_path_prefix("/usr", mode="r")
    grant = Grant.of(manifest, policy, {"$DATA": "/d", "$PLUGIN": "/p"})
    assert {row.asked: (row.status, row.optional) for row in grant.rows()} == {
        "a.example": ("refused", False),
        "GET https://b.example/**": ("refused", False),
        "GET https://c.example/**": ("refused", True),
        "/usr": ("granted", True),
        "/d": ("refused", False),
        "/d/more": ("refused", True),
    }
    assert {row.asked for row in grant.not_granted()} == {"a.example", "GET https://b.example/**", "/d"}
    assert [row.why for row in grant.rows() if row.optional] == ["shows jams", "knows the time zones", None]


@pytest.mark.parametrize(
    ("entry", "says", "column"),
    [
        ('{rule = "*.com", optional = true}', "*.com", 9),
        ('"*.com"', "*.com", 1),
        ("5", "string", 0),
        ("{optional = true}", "rule: field required", 0),
        ('{rule = "a.example", optional = "yes"}', "boolean", 32),
        ('{rule = "a.example", optionel = true}', "optionel", 32),
    ],
)
def test_a_fault_in_an_entry_has_its_column(tmp_path: Path, entry: str, says: str, column: int) -> None:
    """The caret points at the fault in both forms of an entry."""
    head = 'id = "p"\nversion = "1"\nentry = "p:P"\n[permissions]\nconnect = ["a.example", '
    with pytest.raises(ManifestError) as caught:
        Manifest.from_toml(write(tmp_path, "plugin.toml", f"{head}{entry}]\n"))
    [problem] = caught.value.problems
    assert problem.line == 5
    assert says in str(problem)
    assert "<" not in problem.message
    assert problem.offset - len('connect = ["a.example", ') == column


def test_a_variable_cannot_be_optional(tmp_path: Path) -> None:
    """A plugin that has read a variable keeps its value, so an approval could never end."""
    head = 'id = "p"\nversion = "1"\nentry = "p:P"\n[permissions]\n'
    with pytest.raises(ManifestError, match=r"permissions\.env"):
        Manifest.from_toml(write(tmp_path, "plugin.toml", f'{head}env = [{{rule = "TZ", optional = true}}]\n'))


def test_on_request_rules_are_read_and_printed(tmp_path: Path) -> None:
    """A printed policy reads back equal, also with an empty table; deny rules aren't allowed there."""
    rules = SandboxPolicy.locked_down().allow_request("GET https://a.example").allow_path_prefix("/usr", mode="r")
    for given in (rules, SandboxPolicy.locked_down()):
        policy = SandboxPolicy.locked_down().allow_connect_host("b.example").allow_on_request(given)
        path = write(tmp_path, "policy.toml", policy.to_toml())
        assert SandboxPolicy.from_toml(path) == policy
        jsonschema.validate(tomllib.loads(policy.to_toml()), policy_schema())
    with pytest.raises(PolicyError) as caught:
        SandboxPolicy.from_toml(write(tmp_path, "policy.toml", '[on_request]\nconnect = ["*.com"]\nenv = ["TZ"]\n'))
    assert {problem.line for problem in caught.value.problems} == {2, 3}
