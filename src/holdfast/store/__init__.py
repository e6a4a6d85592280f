"""Files and folders on disk: their names, results, locks and digests."""
