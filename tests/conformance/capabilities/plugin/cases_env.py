"""What holds for `self.env`."""


async def granted_names_are_there(plugin):
    """What was asked for and granted, and is set; nothing else."""
    return dict(plugin.env)


async def it_cannot_be_written(plugin):
    """It is a view."""
    try:
        plugin.env["NYX_GRANTED"] = "other"
    except TypeError:
        return plugin.env["NYX_GRANTED"]
    raise AssertionError("it was written")
