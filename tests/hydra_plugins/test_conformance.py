"""Hydra's own conformance suites, with our sweeper and our launcher in the place of Hydra's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra import version
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

OURS = "hydra/sweeper=holdfast"

# the programs of the suites are Hydra's, and older than some of the warnings that are errors here
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("basic", [OURS]), ("joblib", [OURS]), ("stacked", []), ("stacked", [OURS])],
)
class TestLaunchersUnderOurSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", OURS])])
class TestIntegrationUnderOurSweeper(IntegrationTestSuite):
    pass


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", OURS, "hydra/launcher=stacked"])])
class TestIntegrationOfOurLauncher(IntegrationTestSuite):
    pass


@pytest.fixture(autouse=True)
def _as_hydras_own_tests_expect() -> Iterator[None]:
    """Jobs that change into their folders: Hydra's behaviour before 1.2, which the suites were written for."""
    before = version.VersionBase.instance().version_base
    version.setbase("1.1")
    yield
    version.VersionBase.instance().version_base = before
