"""All that touches Hydra's insides: overrides of a command line in, checked jobs out."""
