"""A plugin with methods that stay within its grant, and a few that don't."""

import json

from pydantic import BaseModel

from nyx_stream import Plugin, export


class Forecast(BaseModel):
    """The forecast for a city, in degrees Celsius."""

    city: str
    degrees: int
    sky: str


class Weather(Plugin):
    """Fetches forecasts."""

    @export
    async def cities(self) -> list[str]:
        """Reads a file in the plugin's own folder."""
        cities: list[str] = json.loads(await self.files.read_text(f"{self.manifest.paths[0].prefix}/cities.json"))
        return cities

    @export
    async def forecast(self, service: str, city: str) -> Forecast:
        """Requests a forecast and stores it."""
        reply = await self.http.get(f"{service}/v1/{city}")
        async with self.files.open("last.json", "w") as file:
            await file.write(reply.text)
        return Forecast.model_validate(reply.json())

    @export
    async def last(self) -> Forecast:
        """Reads the stored forecast."""
        return Forecast.model_validate_json(await self.files.read_text("last.json"))

    @export
    async def keys(self, service: str) -> str:
        """Requests a page that the policy doesn't grant."""
        return (await self.http.get(f"{service}/internal/keys")).text

    @export
    async def peek(self, path: str) -> str:
        """Reads any file."""
        return await self.files.read_text(path)

    @export
    async def rewrite(self) -> int:
        """Overwrites its own code."""
        return await self.files.write_text(f"{self.manifest.paths[0].prefix}/weather.py", "")

    @export
    async def sneak(self) -> str:
        """Opens a file with the built-in open, bypassing `self.files`."""
        return _accounts()


def _accounts() -> str:
    with open("/etc/passwd") as file:
        return file.read()
