"""One job, trained by Lightning's Trainer."""
