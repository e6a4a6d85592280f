"""Worker processes: what they are given, what they hand back, and the executor that keeps them busy."""
