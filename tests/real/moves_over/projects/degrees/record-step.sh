#!/bin/sh
exec record "$0" "$@"
