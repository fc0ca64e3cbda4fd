"""Addresses, listening sockets and channels: what connections come from and go through."""
