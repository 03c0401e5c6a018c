#!/bin/bash
# Plays the shim of docker-stacks.
echo "WARNING: Use start-notebook.py instead"
exec /usr/local/bin/start-notebook.py "$@"
