"""The control plane: JSON-RPC 2.0 lines between a primary and whoever asks it."""
