"""What holds for `self.http.narrow`."""

import asyncio
import gc
from functools import partial

import httpx
from claims import refused, refused_at_once

from nyx_stream.errors import NetworkDenied, PolicyError, Revoked

SITE = "http://granted.example"


async def it_is_the_same_kind_of_client(plugin):
    """An `httpx.AsyncClient`, and from one for httpx2 one for httpx2, with nothing of the first one's headers."""
    import httpx2

    plugin.http.headers["authorization"] = "secret"
    try:
        narrow = plugin.http.narrow(f"GET {SITE}/seen")
        other = plugin.http.as_httpx2().narrow(f"GET {SITE}/seen")
        through = narrow.as_httpx2()
    finally:
        del plugin.http.headers["authorization"]
    assert type(narrow) is type(plugin.http)
    assert isinstance(other, httpx2.AsyncClient)
    told = [(await client.get(f"{SITE}/seen")).json() for client in (narrow, other, through)]
    return [told, await refused(through.get(f"{SITE}/hello"), NetworkDenied)]


async def it_sends_what_its_rules_allow(plugin):
    """And refuses the rest by every way there is to ask, behind a redirect too."""
    narrow = plugin.http.narrow(f"GET {SITE}/hello", f"GET {SITE}/to", f"POST {SITE}/e*")
    told = [(await narrow.get(f"{SITE}/hello")).text, (await narrow.post(f"{SITE}/echo", content=b"x" * 90_000)).text]
    address = f"{SITE}/to?/seen"
    acts = (
        narrow.get(f"{SITE}/seen"),
        narrow.post(f"{SITE}/hello"),
        narrow.send(httpx.Request("GET", f"{SITE}/seen")),
        narrow.get(address, follow_redirects=True),
        narrow.get("http://nowhere.example/"),
        narrow.get("http://pages.example/hello"),
    )
    return told + [await refused(act, NetworkDenied) for act in acts]


async def it_streams(plugin):
    """Bodies both ways, more than a message carries."""

    async def pieces():
        for _ in range(10):
            yield b"piece" * 20_000

    narrow = plugin.http.narrow(f"{SITE}/**")
    async with narrow.stream("GET", f"{SITE}/big") as reply:
        size = sum([len(chunk) async for chunk in reply.aiter_bytes()])
    return [size, (await narrow.post(f"{SITE}/digest", content=pieces())).json()]


async def widening_is_an_error(plugin):
    """At the first step and at the second, at once, before anything is sent."""
    narrow = plugin.http.narrow(f"GET {SITE}/hello", "http://pages.example/**")
    wider = ("https://evil.example", "PURGE http://pages.example", "http://pages.example:8080/", "http://[::1]")
    than_narrow = (f"GET {SITE}/seen", f"GET {SITE}/**", f"GET,POST {SITE}/hello", f"GET {SITE}")
    told = [refused_at_once(partial(plugin.http.narrow, rule), NetworkDenied) for rule in wider]
    told += [refused_at_once(partial(narrow.narrow, rule), NetworkDenied) for rule in (*wider, *than_narrow)]
    deeper = narrow.narrow("GET http://pages.example/hello", f"GET {SITE}/hello")
    told.append((await deeper.get("http://pages.example/hello")).text)
    told.append(await refused(deeper.get("http://pages.example/seen"), NetworkDenied))
    return told


async def what_does_not_parse_is_an_error(plugin):
    """As the policy's own: with the place, and nothing is narrowed."""
    narrow = plugin.http.narrow
    return [
        refused_at_once(lambda: narrow("not a rule", "nor this"), PolicyError),
        refused_at_once(narrow, ValueError),
        refused_at_once(lambda: narrow(f"GET {SITE}", ttl="soon"), ValueError),
        refused_at_once(lambda: narrow(f"GET {SITE}", opens=1), ValueError),
    ]


async def its_time_ends_it(plugin):
    """What is under way through it too; the one above goes on."""
    told = []
    brief = plugin.http.narrow(f"{SITE}/**", ttl="1s")
    deeper = brief.narrow(f"{SITE}/**")
    async with deeper.stream("GET", f"{SITE}/slow") as reply:
        pieces = reply.aiter_raw()
        await anext(pieces)
        told.append(await refused(anext(pieces), Revoked))
    told.append(await refused(brief.get(f"{SITE}/hello"), Revoked))
    told.append(await refused(deeper.get(f"{SITE}/hello"), httpx.RequestError))
    told.append(refused_at_once(lambda: deeper.narrow(f"{SITE}/hello"), Revoked))
    waiting = plugin.http.narrow(f"{SITE}/**", ttl=1)
    told.append(await refused(waiting.get(f"{SITE}/hang", timeout=None), Revoked))
    return [*told, (await plugin.http.get(f"{SITE}/hello")).text]


async def budgets_are_counted_in_it_and_above(plugin):
    """Nobody makes a new budget out of one by narrowing."""
    some = plugin.http.narrow(f"{SITE}/**", requests=3)
    one, many = some.narrow(f"{SITE}/**", requests=1), some.narrow(f"{SITE}/**", requests=100, bytes_in="1MiB")
    told = [(await one.get(f"{SITE}/hello")).text, await refused(one.get(f"{SITE}/hello"), Revoked)]
    told += [(await many.get(f"{SITE}/hello")).text for _ in range(2)]
    return [*told, await refused(many.get(f"{SITE}/hello"), Revoked)]


async def closing_it_ends_it_alone(plugin):
    """What is under way through it ends with `Revoked`; the one above and the one beside go on."""
    beside = plugin.http.narrow(f"{SITE}/**")
    async with plugin.http.narrow(f"{SITE}/**") as narrow:
        below, turned = narrow.narrow(f"{SITE}/hello"), narrow.as_httpx2()
        await turned.aclose()
        await narrow.get(f"{SITE}/hello")
        task = asyncio.ensure_future(narrow.get(f"{SITE}/hang", timeout=None))
        done, _ = await asyncio.wait((task,), timeout=0.05)
        assert not done
    told = [await refused(task, Revoked), await refused(narrow.get(f"{SITE}/hello"), RuntimeError)]
    told.append(await refused(below.get(f"{SITE}/hello"), Revoked))
    await narrow.aclose()
    return told + [(await client.get(f"{SITE}/hello")).text for client in (plugin.http, beside)]


async def a_response_outlives_the_name_of_its_client(plugin):
    """Nobody has to keep a client that is still in use."""
    request = httpx.Request("GET", f"{SITE}/big")
    reply = await plugin.http.narrow(f"{SITE}/**").send(request, stream=True)
    gc.collect()
    plugin.http.narrow(f"{SITE}/hello")
    return len(await reply.aread())


async def there_is_no_end_of_them(plugin):
    """One for each request, each forgotten at once."""
    for _ in range(300):
        narrow = plugin.http.narrow(f"{SITE}/**", ttl="1h")
    return (await narrow.get(f"{SITE}/hello")).text
