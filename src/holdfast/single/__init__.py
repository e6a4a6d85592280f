"""Trains one run, or one job of a sweep, with Lightning's Trainer."""
