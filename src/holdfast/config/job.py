"""The specification of one job: what to train, as plain data that any process can receive."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.config.schema import Config


class JobSpec(NamedTuple):
    """One job, composed, checked and hashed once.

    It holds plain values only (no `DictConfig`, no path of a folder), so that it can be pickled and sent to another
    process, which neither composes nor checks it again. A single run is the job with number 0.

    Attributes:
        number: position of the job in its sweep, from 0.
        overrides: the overrides of the command line that make this job, as the user would type them.
        config: the checked configuration.
        config_hash: digest of the configuration, jobs with the same digest train the same model.
    """

    number: int
    overrides: tuple[str, ...]
    config: Config
    config_hash: str
