"""An asyncio framework for running other people's plugins with exactly the capabilities they were granted."""
