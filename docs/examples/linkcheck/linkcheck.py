"""A plugin that checks the links of a folder, through `self.http` and `self.files`."""

import asyncio
import stat
from collections.abc import AsyncIterator

import httpx
from pages import HTML, MARKDOWN, read_page, resolve
from report import Link, Report, Summary, Verdict, markdown, summary

from nyx_stream import Plugin, export
from nyx_stream.errors import FilesystemDenied, LimitExceeded, NetworkDenied, SandboxDenied

CONCURRENCY = 16
_MAX_DEPTH = 20
_BATCH = 500
"""Lines of the report per write."""
_HEAD_UNSUPPORTED = (400, 403, 404, 405, 501)
"""Statuses that some servers return for HEAD although GET works."""


class LinkCheck(Plugin):
    """Reads pages, checks their links, and writes `report.json` and `report.md` into its data directory."""

    @export
    async def check(self, folder: str = ".", limit: int = 2000) -> Summary:
        """Checks every link in `folder`, a granted absolute path or a path below `$DATA`.

        Requests at most `limit` different network addresses and skips the rest.
        """
        addresses, pages, unreadable = await self._read(folder)
        remote = [target for kind, target in addresses if kind == "remote"][: max(0, limit)]
        verdicts = await self._try_all(remote)
        report = Report(folder, pages, unreadable)
        # The links of a large folder don't fit the granted memory, so they are written in batches.
        async with self.files.open("report.json.new", "w") as file:
            lines = [report.begin()]
            for (kind, target), found_on in addresses.items():
                verdict, detail = verdicts.get(target) or await self._look_up(folder, kind, target)
                lines.append(report.add(Link(address=target, verdict=verdict, detail=detail, pages=found_on)))
                if len(lines) == _BATCH:
                    await file.write("".join(lines))
                    lines.clear()
            await file.write("".join([*lines, report.end()]))
        await self.files.rename("report.json.new", "report.json")
        await self.files.write_text("report.md", markdown(report))
        return summary(report, ["report.json", "report.md"])

    async def _read(self, folder: str) -> tuple[dict[tuple[str, str], list[str]], int, dict[str, str]]:
        """Returns the pages of each address, the number of pages, and the unreadable pages with their errors."""
        addresses: dict[tuple[str, str], list[str]] = {}
        pages = 0
        unreadable: dict[str, str] = {}
        async for path in self._walk(folder, _MAX_DEPTH):
            name = path[len(folder) :].lstrip("/") if folder != "." else path
            try:
                text = await self.files.read_text(path, errors="replace")
            except (OSError, LimitExceeded) as error:
                unreadable[name] = str(error).partition("\n")[0]
                continue
            # Parsing a long page would block the event loop.
            page = await asyncio.to_thread(read_page, name, text)
            pages += 1
            for address in page.links:
                addresses.setdefault(resolve(page, address), []).append(name)
        return addresses, pages, unreadable

    async def _walk(self, folder: str, depth: int) -> AsyncIterator[str]:
        for path in sorted(await self.files.iterdir(folder)):
            try:
                found = await self.files.stat(path)
            except OSError:  # a dangling link, or one that leads out of the grant
                continue
            if stat.S_ISDIR(found.st_mode) and depth:
                async for inner in self._walk(path, depth - 1):
                    yield inner
            elif stat.S_ISREG(found.st_mode) and path.lower().endswith((*HTML, *MARKDOWN)):
                yield path

    async def _try_all(self, urls: list[str]) -> dict[str, tuple[Verdict, str]]:
        verdicts: dict[str, tuple[Verdict, str]] = {}
        waiting = iter(urls)

        async def work() -> None:
            for url in waiting:
                verdicts[url] = await self._try(url)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONCURRENCY, len(urls))):
                group.create_task(work())
        return verdicts

    async def _try(self, url: str) -> tuple[Verdict, str]:
        try:
            status = (await self.http.head(url, follow_redirects=True)).status_code
            if status in _HEAD_UNSUPPORTED:
                async with self.http.stream("GET", url, follow_redirects=True) as response:
                    status = response.status_code
        except NetworkDenied as denied:
            return "outside", denied.reason
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return "broken", f"{type(error).__name__}: {error}".partition("\n")[0]
        return ("ok" if status < 400 else "broken"), f"HTTP {status}"

    async def _look_up(self, folder: str, kind: str, target: str) -> tuple[Verdict, str]:
        if kind == "remote":
            return "skipped", "over the limit of links"
        if kind == "other":
            return "skipped", "not a link to check"
        if kind == "broken":
            return "broken", "not an address"
        try:
            found = await self.files.exists(f"{folder}/{target}")
        except FilesystemDenied as denied:
            return "outside", denied.reason
        except (SandboxDenied, OSError, ValueError) as error:
            return "broken", str(error).partition("\n")[0]
        return ("ok", "a file of the folder") if found else ("broken", "no such file in the folder")
