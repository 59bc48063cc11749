"""Fixtures for the tests that need a running taskproxy."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stack import Stack


@pytest.fixture
def make_stack():
    """Makes running stacks; all of them are stopped, and judged, at the end of the test."""
    with contextlib.ExitStack() as stacks:
        yield lambda **settings: stacks.enter_context(Stack(**settings))


@pytest.fixture
def stack(make_stack):
    """A running stack as it is by default."""
    return make_stack()
