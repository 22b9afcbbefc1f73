"""The world that the tests of evaluation ask about."""

from pathlib import Path

import pytest
from pixel_world import write_world


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_world(tmp_path / "data")
