"""Where works are done."""
