"""While an application runs, Python's garbage collector waits for more objects than a page of orders has."""

import gc
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from verdigris import Database
from verdigris.errors import ConfigurationError
from verdigris.fastapi import collector, install

BY_ITSELF = (collector._DEFAULT, 10, 0)


@pytest.fixture(autouse=True)
def before():
    threshold = gc.get_threshold()
    gc.set_threshold(*BY_ITSELF)
    yield
    gc.enable()
    gc.set_threshold(*threshold)


def application(url, lifespan=None, **options):
    app = FastAPI(lifespan=lifespan)
    install(app, Database(url), **options)
    return app


def running(app):
    return app.router.lifespan_context(app)


async def test_it_runs_for_each_fifty_thousand_new_objects_while_the_application_does(database_url):
    async with running(application(database_url)):
        assert gc.get_threshold() == (50_000, *BY_ITSELF[1:])
    assert gc.get_threshold() == BY_ITSELF


@pytest.mark.parametrize("objects", [None, 30_000])
async def test_the_number_is_the_applications(database_url, objects):
    async with running(application(database_url, collect_after=objects)):
        assert gc.get_threshold()[0] == objects or (objects is None and gc.get_threshold() == BY_ITSELF)
    assert gc.get_threshold() == BY_ITSELF


@pytest.mark.parametrize("objects", [0, False, True, -1])
def test_a_number_that_would_switch_it_off_is_refused(objects):
    with pytest.raises(ConfigurationError, match="collect_after=None"):
        application("postgresql://localhost/a", collect_after=objects)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (600, 10, 10), (7_000, 5, 5), (100_000, 50, 50)])
async def test_what_the_application_has_set_is_left_alone(database_url, chosen):
    @asynccontextmanager
    async def lifespan(_):
        gc.set_threshold(*chosen)
        yield

    async with running(application(database_url, lifespan)):
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


async def test_a_collector_that_is_off_stays_as_it_is(database_url):
    gc.disable()
    async with running(application(database_url)):
        assert (gc.isenabled(), gc.get_threshold()) == (False, BY_ITSELF)
    assert (gc.isenabled(), gc.get_threshold()) == (False, BY_ITSELF)


@pytest.mark.parametrize("chosen", [(9_000, 10, 10), (50_000, 50, 100)])
async def test_what_it_sets_while_it_runs_is_kept_at_its_end(database_url, chosen):
    async with running(application(database_url)):
        gc.set_threshold(*chosen)
    assert gc.get_threshold() == chosen


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_applications_the_last_one_that_ends_changes_it_back(database_url, first):
    both = [running(application(database_url)), running(application(database_url))]
    for one in both:
        await one.__aenter__()
        assert gc.get_threshold()[0] == 50_000

    await both.pop(first).__aexit__(None, None, None)
    assert gc.get_threshold()[0] == 50_000
    await both.pop().__aexit__(None, None, None)
    assert gc.get_threshold() == BY_ITSELF


async def test_an_application_that_fails_leaves_it_as_it_was(database_url):
    with pytest.raises(RuntimeError, match="failed"):
        async with running(application(database_url)):
            raise RuntimeError("failed")
    assert gc.get_threshold() == BY_ITSELF
