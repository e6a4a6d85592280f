from __future__ import annotations

import pickle

from holdfast.cli.main import CONF
from holdfast.compose import compose
from holdfast.config.job import JobSpec


def test_a_job_spec_equals_its_pickled_copy() -> None:
    job = JobSpec(3, ("lr=0.1", "optimizer=adam"), compose(["lr=0.1", "optimizer=adam"], CONF), "abc")
    assert pickle.loads(pickle.dumps(job)) == job
