"""A test suite as people write it with pytest-docker; the name of the project is the one that pytest-docker is told."""
import os
import socket

import pytest


@pytest.fixture(scope="session")
def docker_compose_project_name():
    return os.environ["MARK"]


@pytest.fixture(scope="session")
def address(docker_ip, docker_services):
    address = (docker_ip, docker_services.port_for("server", 7000))

    def answers():
        try:
            return said(address) != ""
        except OSError:
            return False

    docker_services.wait_until_responsive(check=answers, timeout=60, pause=0.1)
    return address


def said(address):
    with socket.create_connection(address, 30) as stream:
        return stream.makefile().read()


def test_the_server_says_what_the_project_has(address):
    assert said(address) == "in\n"


def test_it_is_still_there(address):
    assert said(address) == "in\n"
