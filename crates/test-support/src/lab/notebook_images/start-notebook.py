#!/opt/jupyter/bin/python
"""Plays start-notebook.py of docker-stacks: `jupyter lab`, or what the variables make of it."""

import os
import shlex
import sys

if "JUPYTERHUB_API_TOKEN" in os.environ:
    print("WARNING: using start-singleuser.py instead of start-notebook.py to start a server associated with JupyterHub.")
    os.execvp("start-singleuser.py", ["start-singleuser.py", *sys.argv[1:]])

command = ["jupyter", os.environ.get("DOCKER_STACKS_JUPYTER_CMD", "lab")]
command += shlex.split(os.environ.get("NOTEBOOK_ARGS", "")) + sys.argv[1:]
if os.environ.get("RESTARTABLE") == "yes":
    # As run-one-constantly does.
    command = ["sh", "-c", 'while :; do "$@"; done', "run-one-constantly", *command]
print("Executing: " + " ".join(command), flush=True)
os.execvp(command[0], command)
