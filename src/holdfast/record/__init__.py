"""What both engines leave behind: the history of a run, when it ends, its files."""
