"""Does what dockerutils 2.0.7 does for genversion, in one process for many projects.

Each line of stdin is a project: {"root": ..., "environment": {...}, "file": ...}. The original's gen_version_file() is
called in it, which imports the project's own versioneer.py. The line on stdout says what get_versions() returned, the
file that was written for it, what ours in `file` returns, and the exception that ended it.
"""
import configparser
import contextlib
import importlib
import json
import os
import sys
from importlib.machinery import SourceFileLoader

from dockerutils import gen_version

# versioneer 0.18 uses what Python 3.12 took away; both had been other names for a long time.
if not hasattr(configparser, "SafeConfigParser"):
    configparser.SafeConfigParser = configparser.ConfigParser
    configparser.RawConfigParser.readfp = configparser.RawConfigParser.read_file


# Compiling the same versioneer.py in each project would take most of the time.
sys.dont_write_bytecode = True
compiled = {}
compile_source = SourceFileLoader.source_to_code


def source_to_code(loader, data, path, **more):
    if data not in compiled:
        compiled[data] = compile_source(loader, data, path, **more)
    return compiled[data]


SourceFileLoader.source_to_code = source_to_code


class Recorder:
    """json for gen_version, with what was last written as JSON."""

    def __init__(self):
        self.versions = None

    def dumps(self, value, **arguments):
        self.versions = value
        return json.dumps(value, **arguments)


def loaded(path):
    """What get_versions() of our file returns."""
    if not os.path.exists(path):
        return None
    names = {}
    with open(path, encoding="ascii") as file:
        exec(compile(file.read(), path, "exec"), names)
    return names["get_versions"]()


def answer(project):
    os.environ.clear()
    os.environ.update(project["environment"])
    os.chdir(project["root"])
    sys.modules.pop("versioneer", None)
    importlib.invalidate_caches()
    paths = list(sys.path)
    recorder = gen_version.json = Recorder()
    written = project["file"] + ".original"
    exception = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            gen_version.gen_version_file(written)
    except Exception as error:
        exception = repr(error)
    sys.path = paths
    text = None
    if os.path.exists(written):
        with open(written, encoding="ascii") as file:
            text = file.read()
        os.remove(written)
    try:
        ours = loaded(project["file"])
    except Exception as error:
        ours = "our file can't be loaded: " + repr(error)
    return {"versions": recorder.versions, "text": text, "ours": ours, "exception": exception}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
