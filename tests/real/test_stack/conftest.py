"""Fixtures as public suites of notebook images have them: docker's SDK, a port that never changes, the address localhost."""
import os

import docker
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

# The one that the image's server answers at, here as inside.
PORT = "@PORT@"


@pytest.fixture(scope="session")
def http_client():
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=Retry(total=8, backoff_factor=0.5)))
    return session


@pytest.fixture(scope="session")
def docker_client():
    return docker.from_env()


@pytest.fixture(scope="session")
def image_name():
    return os.environ["TEST_IMAGE"]


class Tracked:
    """A container that is removed when its test is over."""

    def __init__(self, client, image):
        self.client, self.image, self.made = client, image, []

    def run(self, **options):
        name = f"{os.environ['MARK']}-tracked"
        made = self.client.containers.run(self.image, name=name, detach=True, ports={"8888/tcp": int(PORT)}, **options)
        self.made.append(made)
        return made


@pytest.fixture
def container(docker_client, image_name):
    tracked = Tracked(docker_client, image_name)
    yield tracked
    for made in tracked.made:
        made.remove(force=True)
