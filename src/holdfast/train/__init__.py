"""Engines that train, the trace they leave, and the writer that turns a trace into a folder."""
