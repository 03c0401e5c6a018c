"""Starts a container, and dies before it can remove it."""
import os
import signal
from pathlib import Path

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

network = Network().create()
container = DockerContainer(os.environ["IMAGE"], network=network).with_command("sleep 600")
container.with_volume_mapping(Path("data").absolute(), "/data").start()
print(container.exec(["cat", "/data/in"]).output.decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
