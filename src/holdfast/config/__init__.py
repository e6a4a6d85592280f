"""The configuration: its schema, the check against it, and the specification of a job."""
