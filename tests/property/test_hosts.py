"""Laws of host names: each has one spelling, and the guard decides on the host that `httpx` dials."""

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from nyx_stream.guard.url_parts import UrlError, read_url
from nyx_stream.policy.hosts import HostError, address_number, canonical_host, is_address

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="aA0.-_x[]:%1fé。\u212a", max_size=30),
    st.from_regex(r"[a-z0-9.-]{1,40}", fullmatch=True),
)


@given(TEXT)
@example("\udcff.example")
@example("xn--\udcff")
def test_any_text_has_a_canonical_spelling_or_is_refused(text: str) -> None:
    """A canonical host is its own canonical spelling, in lower-case ASCII; only `HostError` is raised."""
    try:
        host = canonical_host(text)
    except HostError:
        return
    assert canonical_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    if is_address(host):
        address_number(host)


SCHEMES = st.sampled_from(["http", "https", "HTTP", "ftp", ""])
HOST_TEXT = st.one_of(
    st.sampled_from(["a.com", "A.com.", "127.0.0.1", "0x7f.1", "[::1]", "[::ffff:1.2.3.4]", "xn--a", "faß.de", "a b"]),
    st.text(alphabet="abZ019.-_[]:%@\\\t ß。", max_size=20),
)
TAIL = st.text(alphabet="/abc.%2eF?#=&;*\\ é\x7f", max_size=20)


@given(SCHEMES, HOST_TEXT, st.sampled_from(["", ":80", ":0443", ":65616", ":4_43", ":"]), TAIL)
def test_the_guard_reads_the_host_that_httpx_dials(scheme: str, host: str, port: str, tail: str) -> None:
    """If the guard reads a text, `httpx` would dial exactly the same host and port."""
    text = f"{scheme}://{host}{port}{tail}"
    try:
        parts = read_url(text)
    except UrlError:
        return
    url = httpx.URL(text)
    dialled = url.raw_host.decode("ascii")
    assert canonical_host(dialled) == parts.host
    assert url.scheme == parts.scheme
    assert (url.port or {"http": 80, "https": 443}[url.scheme]) == parts.port
    assert read_url(url) == parts
    assert parts.target.startswith(b"/")
    assert b"/../" not in parts.target.partition(b"?")[0]
