"""What lies on disk: names of files, results, locks, digests."""
