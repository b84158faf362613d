"""Part of a stand-in of ToolSandbox: see README.md. These tools need the network."""


def search_weather(place: str):
    """Search for the weather."""
    raise ConnectionError("no network")
