"""A plugin that follows feeds. It requests only changes, and keeps its state in `$DATA/feeds.json`."""

import asyncio
from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError
from syndication import Entry, FeedError, now, read_feed

from nyx_stream import Plugin, export
from nyx_stream.errors import NetworkDenied

STATE = "feeds.json"
CONCURRENCY = 8
MAX_SEEN = 2000


class Source(BaseModel):
    """The stored state of one feed. `etag` and `modified` make the next request conditional (RFC 9110, 13.1)."""

    title: str = ""
    etag: str | None = None
    modified: str | None = None
    fetched: str | None = None
    seen: list[str] = []
    entries: list[Entry] = []


class State(BaseModel):
    """The state file."""

    sources: dict[str, Source] = {}


class Outcome(BaseModel):
    """The result of fetching one feed."""

    url: str
    status: Literal["new", "unchanged", "denied", "failed"]
    detail: str
    fresh: list[Entry] = []


class Feeds(Plugin):
    """Fetches feeds and reports what is new since the last time."""

    async def setup(self) -> None:
        """Reads the state of the last run. Sets a damaged state file aside, logs a warning, and starts empty."""
        self._lock = asyncio.Lock()
        self._state = State()
        try:
            self._state = State.model_validate_json(await self.files.read_text(STATE))
        except FileNotFoundError:
            pass
        except (ValidationError, UnicodeDecodeError) as error:
            self.log.warning("renamed the damaged state file %s: %s", STATE, type(error).__name__)
            await self.files.rename(STATE, f"{STATE}.broken")

    @export
    async def refresh(self, urls: list[str]) -> list[Outcome]:
        """Fetches feeds concurrently. A failed feed is reported and doesn't affect the others."""
        slots = asyncio.Semaphore(CONCURRENCY)

        async def fetch(url: str) -> Outcome:
            async with slots:
                return await self._fetch(url)

        async with self._lock:
            outcomes = await asyncio.gather(*(fetch(url) for url in dict.fromkeys(urls)))
            await self.files.write_text(STATE, self._state.model_dump_json(indent=2))
        return list(outcomes)

    @export
    async def entries(self, limit: int = 20) -> list[Entry]:
        """Returns the latest entries of all feeds, newest first; entries without a date come last."""
        entries = [entry for source in self._state.sources.values() for entry in source.entries]
        return sorted(entries, key=lambda entry: entry.date or "", reverse=True)[: max(0, limit)]

    async def _fetch(self, url: str) -> Outcome:
        source = self._state.sources.get(url, Source())
        known = {"If-None-Match": source.etag, "If-Modified-Since": source.modified}
        try:
            reply = await self.http.get(
                url, headers={name: value for name, value in known.items() if value}, follow_redirects=True
            )
            if reply.status_code == httpx.codes.NOT_MODIFIED:
                return Outcome(url=url, status="unchanged", detail="not modified")
            reply.raise_for_status()
            feed = await asyncio.to_thread(read_feed, reply.content)
        except NetworkDenied as denied:
            return Outcome(url=url, status="denied", detail=denied.reason)
        except (httpx.HTTPError, httpx.InvalidURL, FeedError) as error:
            return Outcome(url=url, status="failed", detail=str(error).partition("\n")[0] or type(error).__name__)
        seen = set(source.seen)
        fresh = [entry for entry in feed.entries if entry.id not in seen]
        self._state.sources[url] = Source(
            title=feed.title,
            etag=reply.headers.get("etag"),
            modified=reply.headers.get("last-modified"),
            fetched=now(),
            seen=[*(entry.id for entry in fresh), *source.seen][:MAX_SEEN],
            entries=feed.entries,
        )
        status: Literal["new", "unchanged"] = "new" if fresh else "unchanged"
        return Outcome(url=url, status=status, detail=f"{len(fresh)} new of {len(feed.entries)}", fresh=fresh)
