#!/opt/jupyter/bin/python
"""Plays start-singleuser.py of docker-stacks: the server as a JupyterHub starts it."""

import os
import shlex
import sys

command = ["jupyterhub-singleuser", *shlex.split(os.environ.get("NOTEBOOK_ARGS", "")), *sys.argv[1:]]
print("Executing: " + " ".join(command), flush=True)
os.execvp(command[0], command)
