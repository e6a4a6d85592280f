from __future__ import annotations

import pickle

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec, config_hash


def test_a_job_spec_equals_its_pickled_copy() -> None:
    job = JobSpec(3, ("lr=0.1", "optimizer=adam"), compose(["lr=0.1", "optimizer=adam"], CONF), "abc")
    assert pickle.loads(pickle.dumps(job)) == job


def test_the_hash_of_a_configuration_ignores_order_and_folder() -> None:
    assert config_hash({"a": 1, "b": 2}, {"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}, {"b": 2, "a": 1})
    raw = {"dir": "${hydra:runtime.output_dir}"}
    assert config_hash({"dir": "x"}, raw) == config_hash({"dir": "y"}, raw)
    assert config_hash({"rows": {0: 1.0}}, {}) == config_hash({"rows": {"0": 1.0}}, {})
