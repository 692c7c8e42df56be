#!/bin/sh
# Runs a command that finds the files of a directory laid over the machine's /etc, and writes there
# instead of on the machine: with_etc.sh DIRECTORY COMMAND... in a mount namespace of its own.
set -e
mkdir -p "$1/etc" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
shift
exec "$@"
