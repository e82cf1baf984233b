"""Attempts through the capabilities: plain and crafted requests for what was not granted."""

from collections.abc import Iterator

import httpx
from attempt import Action

from nyx_stream import Plugin


def http_attempts(plugin: Plugin) -> Iterator[tuple[str, Action]]:
    """Yields (what, attempt) for `self.http`."""
    plain = {
        "a host that is not granted": "http://evil.example/",
        "a path outside the granted one": "http://granted.example/private",
        "a path that leaves through dots": "http://granted.example/public/../private",
        "a path that leaves through encoded dots": "http://granted.example/public/%2e%2e/private",
        "a path with an encoded slash": "http://granted.example/public/%2fprivate",
        "another port": "http://granted.example:8080/public/x",
        "another scheme": "https://granted.example/public/x",
        "a user name that looks like the host": "http://granted.example@evil.example/public/x",
        "a name that ends in the granted one": "http://notgranted.example/public/x",
        "a name that begins with the granted one": "http://granted.example.evil.example/public/x",
        "the address of a cloud's metadata service": "http://169.254.169.254/latest/meta-data/",
        "a loopback service that the manifest asks for": "http://127.0.0.1/",
        "loopback as a single number": "http://2130706433/",
        "loopback in hexadecimal": "http://0x7f.1/",
        "loopback as IPv6": "http://[::1]/",
        "loopback as IPv4-mapped IPv6": "http://[::ffff:127.0.0.1]/",
    }
    for what, url in plain.items():
        yield f"GET {what}", _get(plugin, url)
    yield "POST where GET is granted", lambda: plugin.http.post("http://granted.example/public/x")
    yield "CONNECT, to tunnel", lambda: plugin.http.request("CONNECT", "http://granted.example/public/x")
    yield "TRACE, to see credentials", lambda: plugin.http.request("TRACE", "http://granted.example/public/x")
    yield "a request built by hand", lambda: plugin.http.send(httpx.Request("GET", "http://evil.example/"))
    yield "a base URL of another host", _rebased(plugin)


def file_attempts(plugin: Plugin) -> Iterator[tuple[str, Action]]:
    """Yields (what, attempt) for `self.files`."""
    files = plugin.files
    for what, path in {
        "a file that the manifest asks for and the policy does not grant": "/etc/passwd",
        "a file that the manifest does not ask for": "/root/.ssh/id_rsa",
        "a path that leaves through dots": "../../../../../../../../etc/passwd",
        "the process's own secrets": "/proc/self/environ",
        "the root directory through the process": "/proc/self/root/etc/passwd",
        "a path with a NUL in it": "report.txt\0.png",
        "a denied folder inside a granted one": "secret/key",
    }.items():
        yield f"read {what}", _read(plugin, path)
    yield "write where reading is granted", lambda: files.write_text(f"{_folder(plugin)}/planted.py", "")
    yield "overwrite the plugin's own code", lambda: files.write_text(f"{_folder(plugin)}/rogue.py", "")
    yield "create a denied folder", lambda: files.mkdir("secret")
    yield "move a file out of the grant", lambda: _move_out(plugin)
    yield "list the system's root", lambda: files.iterdir("/")
    yield "remove a directory outside the grant", lambda: files.remove("/etc")


def _get(plugin: Plugin, url: str) -> Action:
    return lambda: plugin.http.get(url)


def _read(plugin: Plugin, path: str) -> Action:
    return lambda: plugin.files.read_bytes(path)


def _rebased(plugin: Plugin) -> Action:
    async def action() -> object:
        plugin.http.base_url = httpx.URL("http://evil.example/")
        try:
            return await plugin.http.get("/public/x")
        finally:
            plugin.http.base_url = httpx.URL("")

    return action


async def _move_out(plugin: Plugin) -> object:
    await plugin.files.write_text("mine.txt", "x")
    return await plugin.files.rename("mine.txt", "/tmp/nyx-rogue.txt")


def _folder(plugin: Plugin) -> str:
    # The manifest grants the plugin's own folder for reading.
    return next(rule.prefix for rule in plugin.manifest.paths if rule.mode == "r" and rule.prefix != "/etc")
