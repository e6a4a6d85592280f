"""The process that trains: how it was started, its devices, its signals, and its global state."""
