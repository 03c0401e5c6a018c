"""Tests of one image: folders beside this file are mounted."""
import os
import time

HERE = os.path.dirname(os.path.realpath(__file__))


def mount(name, mode):
    return {os.path.join(HERE, name): {"bind": f"/mnt/{name}", "mode": mode}}


def test_a_folder_is_read(container):
    made = container.run(volumes=mount("data", "ro"), command=["cat", "/mnt/data/in"])
    assert made.wait(timeout=60)["StatusCode"] == 0
    assert made.logs() == b"in\n"


def test_what_a_container_makes_is_here(container):
    made = container.run(volumes=mount("out", "rw"), command=["sh", "-c", "echo made > /mnt/out/made"])
    assert made.wait(timeout=60)["StatusCode"] == 0
    file = os.path.join(HERE, "out", "made")
    for _ in range(300):
        if os.path.exists(file):
            break
        time.sleep(0.1)
    assert open(file).read() == "made\n"


def test_where_it_runs(image_name):
    assert os.getcwd() == os.environ["PYTHONPATH"].split(":")[0]
    assert image_name.endswith(":1.10-main")
