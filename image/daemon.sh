#!/usr/bin/env bash
# Make sure that a Docker daemon answers and has a base for the Dockerfile, whose name is printed, on a Debian machine that
# may reach no image registry: the daemon comes from Debian; the base is the Dockerfile's own or, where that cannot be had,
# one from debootstrap under its tag, without its digest. Does nothing where both are there.
set -euo pipefail
exec 3>&1 1>&2
mkdir -p build
DOCKER=${DOCKER:-docker}
BASE=$(sed -n 's/^ARG BASE=//p' Dockerfile)

if ! "$DOCKER" info >/dev/null 2>&1; then
  command -v dockerd >/dev/null || { apt-get update -qq && apt-get install -y -qq docker.io >/dev/null; }
  rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid  # left by a daemon that was killed
  nohup dockerd --iptables=false --ip6tables=false --bridge=none >build/dockerd.log 2>&1 </dev/null 3>&- &
  for _ in $(seq 60); do "$DOCKER" info >/dev/null 2>&1 && break; sleep 1; done
  "$DOCKER" info >/dev/null || { tail -5 build/dockerd.log; exit 1; }
fi
have() { "$DOCKER" image inspect "$1" >/dev/null 2>&1; }
if ! have "$BASE" && ! "$DOCKER" pull --quiet "$BASE" >/dev/null 2>&1; then
  BASE=${BASE%@*}
  if ! have "$BASE"; then
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap >/dev/null; }
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >build/debootstrap.log
    tar -C "$root" -c . | "$DOCKER" import - "$BASE"
  fi
fi
echo "$BASE" >&3
