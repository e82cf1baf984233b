"""A plugin with honest methods, and a few that try more than they were granted."""

import json

from pydantic import BaseModel

from nyx_stream import Plugin, export


class Forecast(BaseModel):
    """What the service says of a city. `degrees` are Celsius."""

    city: str
    degrees: int
    sky: str


class Weather(Plugin):
    """Forecasts."""

    @export
    async def cities(self) -> list[str]:
        """Reads a file of the plugin's own folder."""
        cities: list[str] = json.loads(await self.files.read_text(f"{self.manifest.paths[0].prefix}/cities.json"))
        return cities

    @export
    async def forecast(self, service: str, city: str) -> Forecast:
        """Asks the service, and keeps the answer."""
        reply = await self.http.get(f"{service}/v1/{city}")
        async with self.files.open("last.json", "w") as file:
            await file.write(reply.text)
        return Forecast.model_validate(reply.json())

    @export
    async def last(self) -> Forecast:
        """Reads what was kept."""
        return Forecast.model_validate_json(await self.files.read_text("last.json"))

    @export
    async def keys(self, service: str) -> str:
        """Asks for a page of the service that is none of its business."""
        return (await self.http.get(f"{service}/internal/keys")).text

    @export
    async def peek(self, path: str) -> str:
        """Reads a file that somebody names."""
        return await self.files.read_text(path)

    @export
    async def rewrite(self) -> int:
        """Changes its own code, for the next time it is loaded."""
        return await self.files.write_text(f"{self.manifest.paths[0].prefix}/weather.py", "")

    @export
    async def sneak(self) -> str:
        """Opens a file without asking its capability."""
        return _accounts()


def _accounts() -> str:
    with open("/etc/passwd") as file:
        return file.read()
