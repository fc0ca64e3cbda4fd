"""Imports what is not installed."""

import surely_not_installed  # type: ignore[import-not-found]

app = surely_not_installed.app
