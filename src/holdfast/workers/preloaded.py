"""Importing this module imports all that a worker needs, so that a server can do it once for workers to come."""

import holdfast.single.startup

holdfast.single.startup.import_training()

import holdfast.execute.alone  # noqa: E402
import holdfast.stacked.outputs  # noqa: E402
import holdfast.stacked.stack_trainer  # noqa: E402
import holdfast.workers.worker  # noqa: E402
