"""Fixtures for the tests that need a running taskproxy."""

import contextlib
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import stack as running
from stack import Stack


def pytest_addoption(parser):
    parser.addoption("--order-seed", type=int, help="run the tests in a random order, the same one for the same number")


def pytest_configure(config):
    config.addinivalue_line("markers", "alert(*names): the test causes these alerts of conf/prometheus")
    config.addinivalue_line("markers", 'problem(*texts): the test causes a problem of the README\'s chapter "Troubleshooting"; its row begins so')


def pytest_collection_modifyitems(config, items):
    """Shuffles the files, and the tests within each, so that module fixtures are still made only once."""
    if (seed := config.getoption("order_seed")) is None:
        return
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order, groups = random.Random(seed), list(files.values())
    order.shuffle(groups)
    for group in groups:
        order.shuffle(group)
    items[:] = [item for group in groups for item in group]


def pytest_runtest_setup():
    running.forget_stopped()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Adds the logs of the programs that ran for a failed test to its report."""
    report = (yield).get_result()
    if report.failed:
        report.sections += running.last_lines()


@pytest.fixture
def make_stack():
    """Makes running stacks; all of them are stopped and checked at the end of the test."""
    with contextlib.ExitStack() as stacks:
        yield lambda **settings: stacks.enter_context(Stack(**settings))


@pytest.fixture
def stack(make_stack):
    """A running stack with the default settings."""
    return make_stack()


@pytest.fixture
def make_frozen(make_stack):
    """Makes running stacks whose clock is frozen and moves only when the test steps it (tests/clock/clock.py)."""

    def make(**settings):
        stack = make_stack(clock=True, **settings)
        stack.freeze()
        return stack

    return make
