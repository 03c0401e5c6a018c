"""A server and a client on a network, with folders of the project: as a suite of tests starts them."""
import os
import socket
from pathlib import Path

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

image, mark = os.environ["IMAGE"], os.environ["MARK"]
with Network() as network:
    server = (
        DockerContainer(image, name=f"{mark}-server", network=network, network_aliases=["server"])
        .with_command(["sh", "-c", "echo made > /out/made; cat /data/in > /tmp/said; echo ready; exec nc -ll -p 8000 -e cat /tmp/said"])
        .with_volume_mapping(Path("data").absolute(), "/data")
        .with_volume_mapping(Path("out").absolute(), "/out", "rw")
        .with_tmpfs_mount("/scratch", "size=1m")
        .with_env("A", "b c")
        .with_exposed_ports(8000)
        .with_copy_into_container(b"copied", "/copied", 0o600)
        .waiting_for(LogMessageWaitStrategy("ready").with_startup_timeout(60))
    )
    with server:
        with socket.create_connection((server.get_container_host_ip(), server.get_exposed_port(8000)), 30) as stream:
            print("port", stream.makefile().read())
        print("exec", server.exec(["sh", "-c", 'echo "$A"; touch /data/x 2>&1; cat /copied; stat -c %a /copied']))
        mounts = server.get_wrapped_container().attrs["HostConfig"]["Binds"]
        print("binds", sorted(bind.replace(os.getcwd(), "HERE") for bind in mounts))
        with DockerContainer(image, name=f"{mark}-client", network=network).with_command("nc server 8000") as client:
            print("client", client.wait(), client.get_logs())
        print("logs", server.get_logs())
