"""What holds for `self.http`."""

import asyncio

import httpx
from claims import refused

from nyx_stream.errors import LimitExceeded, NetworkDenied

SITE = "http://granted.example"


async def it_is_an_httpx_client(plugin):
    """SDKs that look for one find one."""
    return [isinstance(plugin.http, httpx.AsyncClient), plugin.http is plugin.http]


async def a_page_is_fetched(plugin):
    """Status, headers, text, history, the request that it answers."""
    reply = await plugin.http.get(f"{SITE}/hello", params={"q": "ä b"}, headers={"X-Own": "1"})
    assert reply.request.url.path == "/hello"
    assert reply.elapsed.total_seconds() > 0
    return [
        reply.status_code,
        reply.reason_phrase,
        reply.http_version,
        reply.text,
        dict(reply.headers),
        reply.is_closed,
    ]


async def the_server_sees_what_the_client_says(plugin):
    """Method, target, own headers, and a Host of the framework's."""
    reply = await plugin.http.put(
        f"{SITE}/seen?a=1&a=2", content=b"body", headers={"X-Own": "v", "Host": "evil.example"}
    )
    return reply.json()


async def every_kind_of_body_arrives(plugin):
    """None, bytes, form, JSON, files, an iterator; short and long."""
    told = []
    for options in (
        {},
        {"content": b"short"},
        {"content": b"long" * 100_000},
        {"data": {"a": "1"}},
        {"json": {"b": [2]}},
        {"content": _pieces(3)},
        {"content": _pieces(3), "headers": {"Content-Length": "300000"}},
    ):
        reply = await plugin.http.post(f"{SITE}/digest", **options)
        told.append(reply.json())
    form = await plugin.http.post(f"{SITE}/echo", files={"f": ("name.txt", b"content" * 20_000)})
    assert form.content.count(b"content" * 20_000) == 1
    return told


async def every_kind_of_response_arrives(plugin):
    """Empty, short, long, chunked, compressed, without a length."""
    told = []
    for path in ("empty", "nothing", "hello", "big", "chunks", "gzip", "endless-header", "until-close"):
        reply = await plugin.http.get(f"{SITE}/{path}")
        told.append([path, reply.status_code, len(reply.content), reply.content[:20].decode("latin-1")])
    head = await plugin.http.head(f"{SITE}/big")
    return [*told, head.headers["content-length"], head.content.decode()]


async def a_response_is_streamed(plugin):
    """Piece by piece, raw and decoded, by lines and in chunks of a size."""
    told = []
    async with plugin.http.stream("GET", f"{SITE}/big") as reply:
        sizes = [len(chunk) async for chunk in reply.aiter_bytes(100_000)]
        told.append([sizes, reply.num_bytes_downloaded])
    async with plugin.http.stream("GET", f"{SITE}/gzip") as reply:
        told.append(len(b"".join([chunk async for chunk in reply.aiter_raw()])))
    async with plugin.http.stream("GET", f"{SITE}/chunks") as reply:
        told.append([line async for line in reply.aiter_lines()])
    async with plugin.http.stream("GET", f"{SITE}/hello") as reply:
        told.append((await reply.aread()).decode())
    async with plugin.http.stream("GET", f"{SITE}/empty") as reply:
        told.append((await reply.aread()).decode())
    return told


async def the_head_comes_before_the_body(plugin):
    """A body that does not come keeps nobody from the head; a stream that is left early gives its connection back."""
    told = []
    for _ in range(8):
        async with plugin.http.stream("GET", f"{SITE}/slow") as reply:
            first = await anext(aiter(reply.aiter_bytes()))
            told.append([reply.status_code, first.decode()])
    return told


async def an_upload_is_streamed(plugin):
    """The body is asked for piece by piece, and not before the request is granted."""
    began = []

    async def pieces():
        began.append(1)
        for number in range(10):
            yield b"%d" % number * 50_000

    reply = await plugin.http.post(f"{SITE}/digest", content=pieces())
    denied = await refused(plugin.http.post("http://nowhere.example/", content=pieces()), NetworkDenied)
    return [reply.json(), denied, len(began)]


async def a_body_that_fails_fails_the_request(plugin):
    """The body's own error reaches the caller, and the server gets no whole request."""

    async def pieces():
        yield b"first"
        raise KeyError("on purpose")

    async def numbers():
        yield 5

    return [
        await refused(plugin.http.post(f"{SITE}/echo", content=pieces()), KeyError),
        await refused(plugin.http.post(f"{SITE}/echo", content=numbers()), TypeError),
    ]


async def redirects_are_followed(plugin):
    """Across paths and hosts, with history; each hop is decided."""
    reply = await plugin.http.get(f"{SITE}/to?/to%3F/hello", follow_redirects=True)
    stopped = await plugin.http.get(f"{SITE}/to?/hello")
    posted = await plugin.http.post(f"{SITE}/to?/seen", content=b"x", follow_redirects=True)
    return [
        [str(hop.url) for hop in reply.history],
        str(reply.url),
        reply.text,
        stopped.status_code,
        str(stopped.next_request.url),
        posted.json()["method"],
    ]


async def redirects_are_refused(plugin):
    """To what is not granted, to a crooked place, and in circles."""
    told = []
    for place in ("http://nowhere.example/", "ftp://granted.example/", "http://user@granted.example/", "\\\\evil"):
        address = httpx.URL(f"{SITE}/to", query=place.encode())
        told.append(await refused(plugin.http.get(address, follow_redirects=True), NetworkDenied))
    told.append(await refused(plugin.http.get(f"{SITE}/circle", follow_redirects=True), httpx.TooManyRedirects))
    return told


async def credentials_stay_with_their_origin(plugin):
    """A hop to another origin loses Authorization and cookies set by hand."""
    plugin.http.cookies.set("own", "1")
    address = httpx.URL(f"{SITE}/to", query=b"http://pages.example/seen")
    reply = await plugin.http.get(address, headers={"Authorization": "secret", "X-Key": "k"}, follow_redirects=True)
    return reply.json()


async def cookies_are_kept(plugin):
    """Set by a response, sent with the next request, and not to another host."""
    await plugin.http.get(f"{SITE}/cookie")
    here = (await plugin.http.get(f"{SITE}/seen")).json()
    there = (await plugin.http.get("http://pages.example/seen")).json()
    return [dict(plugin.http.cookies), here, there]


async def authentication_runs_its_flow(plugin):
    """Basic at once; digest after a challenge."""
    basic = await plugin.http.get(f"{SITE}/seen", auth=("user", "pass"))
    digest = await plugin.http.get(f"{SITE}/challenge", auth=httpx.DigestAuth("user", "pass"))
    return [basic.json(), digest.status_code, len(digest.history)]


async def hooks_run(plugin):
    """Event hooks see requests and responses."""
    seen = []

    async def before(request):
        seen.append(request.url.path)

    async def after(response):
        seen.append(response.status_code)

    plugin.http.event_hooks = {"request": [before], "response": [after]}
    try:
        await plugin.http.get(f"{SITE}/to?/hello", follow_redirects=True)
    finally:
        plugin.http.event_hooks = {"request": [], "response": []}
    return seen


async def what_is_not_granted_is_denied(plugin):
    """By every way there is to ask, with the host's text, as an error that HTTP code handles too."""
    http, told = plugin.http, []
    for url in (
        "http://nowhere.example/",
        "https://granted.example.evil.example/",
        "http://pages.example:8080/",
        "ftp://granted.example/",
        "http://granted.example@evil.example/",
        "http://2130706433/",
        "http://[::1]/",
        "http://inside.example/",
        "http://denied.example/",
        "/relative",
    ):
        told.append(await refused(http.get(url), NetworkDenied))
        told.append(await refused(http.send(httpx.Request("GET", url)), httpx.RequestError))
    told.append(await refused(http.request("CONNECT", f"{SITE}/"), NetworkDenied))
    told.append(await refused(http.get(f"{SITE}/hello", headers={"Upgrade": "h2c"}), NetworkDenied))
    told.append(await refused(http.get(f"{SITE}/switch"), NetworkDenied))
    for odd in ("5", [1], {"read": -1}, {"read": "1"}, {"read": float("nan")}):
        request = http.build_request("GET", f"{SITE}/hello", extensions={"timeout": odd})
        told.append(await refused(http.send(request), NetworkDenied))
    try:
        await http.get("http://nowhere.example/")
    except NetworkDenied as denied:
        told.append([denied.plugin, denied.capability, denied.action, denied.target, denied.rule, denied.reason])
        told.append([str(denied.request.url), isinstance(denied, httpx.TransportError), isinstance(denied, OSError)])
    return told


async def faults_of_the_network_are_httpx_errors(plugin):
    """Refused, cut off, malformed, silent: the classes and texts that httpx has."""
    http = plugin.http
    told = [
        await refused(http.get("http://closed.example/"), httpx.ConnectError),
        await refused(http.get(f"{SITE}/cut"), httpx.RemoteProtocolError),
        await refused(http.get(f"{SITE}/garbage"), httpx.RemoteProtocolError),
        await refused(http.get(f"{SITE}/hang", timeout=0.05), httpx.ReadTimeout),
        await refused(http.get(f"{SITE}/slow", timeout=0.05), httpx.ReadTimeout),
        await refused(http.get(f"{SITE}/\x00"), httpx.InvalidURL),
        await refused(http.get(f"{SITE}/bad-gzip"), httpx.DecodingError),
    ]
    async with http.stream("GET", f"{SITE}/cut") as reply:
        told.append(await refused(reply.aread(), httpx.RemoteProtocolError))
    async with http.stream("GET", f"{SITE}/slow", timeout=0.05) as reply:
        told.append(await refused(reply.aread(), httpx.ReadTimeout))
    return told


async def a_cancelled_request_ends(plugin):
    """Before the head and in the body; the client goes on."""
    for path in ("hang", "slow"):
        task = asyncio.ensure_future(plugin.http.get(f"{SITE}/{path}"))
        done, _ = await asyncio.wait((task,), timeout=0.05)
        assert not done
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    return (await plugin.http.get(f"{SITE}/hello")).text


async def many_at_once(plugin):
    """Side by side, more than there are connections, each gets its own."""
    bodies = [b"%d" % number * 1000 * (number % 7 * 20 + 1) for number in range(40)]
    replies = await asyncio.gather(*(plugin.http.post(f"{SITE}/echo", content=body) for body in bodies))
    return [reply.content for reply in replies] == bodies


async def httpx2_is_there_too(plugin):
    """SDKs that want the other library get its client, its classes and its errors."""
    import httpx2

    client = plugin.http.as_httpx2(headers={"X-Own": "2"})
    assert isinstance(client, httpx2.AsyncClient)
    reply = await client.post(f"{SITE}/seen", content=b"x" * 100_000)
    denied = await refused(client.get("http://nowhere.example/"), NetworkDenied)
    closed = await refused(client.get("http://closed.example/"), httpx2.ConnectError)
    circle = await refused(client.get(f"{SITE}/circle", follow_redirects=True), httpx2.TooManyRedirects)
    return [reply.json(), denied, closed, circle]


async def bounds_are_kept(plugin):
    """Bodies each way, on the wire and decoded, and headers: each limit by its name."""
    http = plugin.http
    acts = (
        http.get(f"{SITE}/too-large"),
        http.get(f"{SITE}/too-long"),
        http.get(f"{SITE}/bomb"),
        http.get(f"{SITE}/heady"),
        http.post(f"{SITE}/echo", content=b"x" * 2_000_001),
        http.post(f"{SITE}/echo", content=_pieces(21)),
    )
    told = [await refused(act, LimitExceeded) for act in acts]
    async with http.stream("GET", f"{SITE}/too-long") as reply:
        told.append(await refused(reply.aread(), LimitExceeded))
    return told


async def _pieces(count):
    for _ in range(count):
        yield b"piece" * 20_000
