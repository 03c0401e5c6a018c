#!/bin/sh
# The program on the desktop: it says in the project as whom it runs, and takes what is typed.
exec xterm -maximized -e sh -c 'id -u > /home/jovyan/project/desktop; exec sh'
