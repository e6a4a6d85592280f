"""Tables that do not fit into memory: converted once to blocks of rows on disk, from which they are trained."""
