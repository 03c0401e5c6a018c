"""Settings of Jupyter for a project that is mounted into a container, of whatever image.

Jupyter reads this file where the variable JUPYTER_CONFIG_PATH names its folder; start-notebook beside it sees to that. The
user's own settings (~/.jupyter) win over it.

With DOCKER_DS_DIFFS=1 (or RESERO_JUPYTER_DIFFS=1), each notebook that is saved leaves two copies in the folder .diffs beside
it, for reviews and comparisons: NAME.py (NAME.R and so on for other languages) and NAME.html. A process of its own makes
them, which is this file as a program: a save waits for nothing, and fails for nothing that has to do with them.

Where the project has a jupytext.toml, jupytext pairs its notebooks with scripts: by its own extension, if it is installed.
"""

import atexit
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading

#: Where the copies of a notebook are, seen from its folder.
FOLDER = ".diffs"
#: How long the copies of one notebook may take, in seconds.
LIMIT = 120
#: How long the end of the server may wait for copies that are being made, in seconds; docker stop gives it ten.
LAST_LIMIT = 8

log = logging.getLogger("jupyter_server.diffs")


def is_wanted():
    values = (os.environ.get(name, "") for name in ("DOCKER_DS_DIFFS", "RESERO_JUPYTER_DIFFS"))
    return any(value.strip().lower() not in ("", "0", "false", "no") for value in values)


class Copies:
    """The notebooks whose copies are to be made: one after the other, each once however often it was saved meanwhile."""

    def __init__(self):
        self.changed = threading.Condition()
        self.waiting = {}
        self.is_busy = False
        self.thread = None

    def ask(self, notebook):
        with self.changed:
            self.waiting[notebook] = None
            if self.thread is None:
                self.thread = threading.Thread(target=self.work, name="diffs", daemon=True)
                self.thread.start()
                atexit.register(self.finish)
            self.changed.notify_all()

    def work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting)
                notebook = next(iter(self.waiting))
                del self.waiting[notebook]
                self.is_busy = True
            try:
                self.make(notebook)
            except Exception as error:  # Whatever it is, the next notebook is to be copied.
                log.warning("%s: no copy in %s: %s", notebook, FOLDER, error)
            finally:
                with self.changed:
                    self.is_busy = False
                    self.changed.notify_all()

    @staticmethod
    def make(notebook):
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), notebook],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            errors="replace",
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"code {done.returncode}")

    def finish(self):
        with self.changed:
            self.changed.wait_for(lambda: not self.waiting and not self.is_busy, timeout=LAST_LIMIT)


def copy(notebook):
    """Writes the copies of a notebook. A reader sees the old one or the new one, and no half of either."""
    import nbformat
    from nbconvert import HTMLExporter, ScriptExporter

    folder, name = os.path.split(notebook)
    folder = os.path.join(folder, FOLDER)
    stem = os.path.splitext(name)[0]
    content = nbformat.read(notebook, as_version=4)
    os.makedirs(folder, exist_ok=True)
    for exporter in (ScriptExporter(), HTMLExporter()):
        resources = {"metadata": {"name": stem, "path": os.path.dirname(notebook)}}
        text, resources = exporter.from_notebook_node(content, resources=resources)
        target = os.path.join(folder, stem + resources["output_extension"])
        number, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
            # A temporary file is private; a copy is as readable as its notebook.
            os.chmod(partial, os.stat(notebook).st_mode & 0o666)
            os.replace(partial, target)
        except BaseException:
            os.unlink(partial)
            raise


def say_what_pairs():
    """Says so if the project asks for pairs of notebooks and scripts, and nothing here makes them."""
    project = os.environ.get("NOTEBOOK_PROJECT") or os.getcwd()
    is_asked = os.path.isfile(os.path.join(project, "jupytext.toml"))
    if is_asked and importlib.util.find_spec("jupytext") is None:
        print(
            "start-notebook: the project has a jupytext.toml, but the image has no jupytext: notebooks are not paired with "
            "scripts; install it in the image: pip install jupytext",
            file=sys.stderr,
            flush=True,
        )


def settings():
    c = get_config()  # noqa: F821 - Jupyter gives it to the files that it reads
    # jupyter-collaboration keeps its memory in the working directory, which is the project.
    from jupyter_core.paths import jupyter_data_dir

    c.SQLiteYStore.db_path = os.path.join(jupyter_data_dir(), "collaboration.db")
    say_what_pairs()
    if is_wanted():
        copies = Copies()

        def post_save(model, os_path, contents_manager):
            if model["type"] == "notebook" and os_path.endswith(".ipynb"):
                copies.ask(os_path)

        c.FileContentsManager.post_save_hook = post_save


if __name__ == "__main__":
    copy(sys.argv[1])
else:
    settings()
