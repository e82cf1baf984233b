"""`nyx learn`: a call that is let pass what the plugin asks for, and the smallest policy that covers what it did."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nyx_stream.audit import AuditEvent, read_log
from nyx_stream.cli import main
from nyx_stream.guard import SandboxGuard
from nyx_stream.guard.policy_learner import learn_policy, report_only_policy
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.manifest import Manifest
from tests.plugin_fixtures import write_plugin

CODE = """
    class Main(Plugin):
        @export
        async def work(self, base: str) -> int:
            for name in ("oslo", "bergen"):
                await self.http.get(f"{base}/v1/{name}?units=metric")
            await self.http.post(f"{base}/hook", content=b"x")
            await self.files.write_text("reports/today.txt", "x")
            return len(await self.files.read_text("reports/today.txt"))

        @export
        async def stray(self, base: str) -> None:
            await self.http.get(f"{base}/v1/oslo")
            await self.http.get("https://elsewhere.example/")
    """


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def base():
    """The address of a web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path, base):
    """A plugin that asks for more than it uses."""
    asked = f'request = ["{base}/**"]\nconnect = ["127.0.0.1"]\nwrite = ["$DATA"]\nread = ["/etc"]\n'
    (tmp_path / "data" / "p" / "reports").mkdir(parents=True)
    return write_plugin(tmp_path / "p", CODE, permissions=asked)


def test_the_printed_policy_is_small_and_enough(tmp_path, folder, base, capfd):
    """The policy has what was done, generalised by a folder at most, and the same call runs under it."""
    data = ("--data-dir", str(tmp_path / "data"))
    assert main(["learn", str(folder), "work", f"base={base}", *data, "--audit", str(tmp_path / "audit.jsonl")]) == 0
    (tmp_path / "policy.toml").write_text(capfd.readouterr().out)
    policy = SandboxPolicy.from_toml(tmp_path / "policy.toml")
    assert [rule.text for rule in policy.request] == [f"POST {base}/hook", f"GET {base}/v1/*"]
    assert [(rule.prefix, rule.mode) for rule in policy.paths] == [("$DATA/reports", "rw")]
    assert policy.connect == ()
    assert policy.report is None
    assert main(["run", str(folder), "work", f"base={base}", "--policy", str(tmp_path / "policy.toml"), *data]) == 0
    reasons = {event.reason for event in read_log(tmp_path / "audit.jsonl") if event.capability == "http"}
    assert reasons == {"report only: no rule allows it"}


def test_what_the_manifest_does_not_ask_for_stays_denied(tmp_path, folder, base, capfd):
    """A call that strays ends in its denial; what it did before is told, and the denial stands in a comment."""
    assert main(["learn", str(folder), "stray", f"base={base}", "--data-dir", str(tmp_path / "data")]) == 1
    said = capfd.readouterr()
    assert "# Denied, and no policy can allow it: http GET https://elsewhere.example/" in said.out
    assert f"GET {base}/v1/oslo" in said.out
    assert "elsewhere.example" in said.err


def event(capability: str, action: str, target: str, *, allowed: bool = True) -> AuditEvent:
    """A record of something done."""
    return AuditEvent(0.0, "p", capability, action, target, allowed, None, "", "guard")


def manifest(tmp_path, permissions: str) -> Manifest:
    """A manifest that asks for something."""
    return Manifest.from_toml(write_plugin(tmp_path / "p", "", permissions=permissions) / "plugin.toml")


@pytest.mark.parametrize(
    ("urls", "rules"),
    [
        (["https://a.example/x"], ["GET https://a.example/x"]),
        (["https://a.example/"], ["GET https://a.example/"]),
        (["https://a.example"], ["GET https://a.example/"]),
        (["https://a.example/x", "https://a.example/y"], ["GET https://a.example/x", "GET https://a.example/y"]),
        (["https://a.example/d/x", "https://a.example/d/y"], ["GET https://a.example/d/*"]),
        (
            ["https://a.example/d/x", "https://b.example/d/y"],
            ["GET https://a.example/d/x", "GET https://b.example/d/y"],
        ),
        (["https://a.example/d%2Fx"], ["GET https://a.example"]),
        (["http://[::1]:8080/d/x?q=1"], ["GET http://[::1]:8080/d/x"]),
        (["https://a.example/b|c"], ["GET https://a.example/b%7Cc"]),
    ],
)
def test_requests_are_generalised_with_care(tmp_path, urls, rules):
    """Hosts stay exact, a lone path stays itself, and a guard under the rules allows every URL."""
    asked = manifest(tmp_path, 'request = ["https://a.example", "https://b.example", "http://[::1]:8080"]')
    policy = learn_policy([event("http", "GET", url) for url in urls], asked, {"$DATA": "/data", "$PLUGIN": "/p"})
    assert [rule.text for rule in policy.request] == rules
    guard = SandboxGuard(policy, manifest=asked)
    assert all(guard.decide_request("GET", url).allowed for url in urls)


def test_paths_become_folders_within_the_manifest(tmp_path):
    """A file stands for its folder, unless the manifest asks for the file alone; what was denied is not learned."""
    asked = manifest(tmp_path, 'read = ["/etc/hosts", "/usr/share", "./"]\nwrite = ["$DATA"]')
    places = {"$DATA": "/data", "$PLUGIN": "/plugins/p"}
    events = [
        event("files", "read", "/etc/hosts"),
        event("files", "list", "/usr/share/zoneinfo"),
        event("files", "read", "/usr/share/zoneinfo/Europe/Oslo"),
        event("files", "stat", "/plugins/p/shipped/table.csv"),
        event("files", "rename", "a/b -> a/c"),
        event("files", "read", "a/c"),
        event("files", "read", "/root/x", allowed=False),
    ]
    policy = learn_policy(events, asked, places)
    assert [(rule.prefix, rule.mode) for rule in policy.paths] == [
        ("$PLUGIN/shipped", "r"),
        ("/etc/hosts", "r"),
        ("/usr/share/zoneinfo", "r"),
        ("$DATA/a", "rw"),
    ]


def test_a_private_address_behind_a_name_is_learned(tmp_path):
    """Where a name led to an address that needs a rule of its own, the policy has that rule, with its port."""
    asked = manifest(tmp_path, 'request = ["http://in.example.com:9090/**"]\nconnect = ["10.0.0.0/8"]')
    events = [
        event("http", "GET", "http://in.example.com:9090/x"),
        event("connect", "connect", "in.example.com:9090 at 10.0.0.7"),
    ]
    policy = learn_policy(events, asked, {"$DATA": "/data", "$PLUGIN": "/p"})
    assert [rule.text for rule in policy.connect] == ["10.0.0.7:9090"]
    guard = SandboxGuard(policy, manifest=asked)
    assert guard.decide_addresses("in.example.com", 9090, ["10.0.0.7"]).allowed


def test_a_trial_enforces_nothing_but_the_manifest(tmp_path):
    """All that is asked for is reported, and nothing else is allowed."""
    asked = manifest(tmp_path, 'request = ["https://a.example/**"]')
    guard = SandboxGuard(report_only_policy(asked), manifest=asked)
    assert guard.decide_request("GET", "https://a.example/x").reported
    assert not guard.decide_request("GET", "https://b.example/x").allowed
