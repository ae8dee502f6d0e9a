#!/usr/bin/env bash
# Make sure that a Docker daemon answers and has the Dockerfile's base image, on a Debian machine that may reach no
# image registry: the daemon comes from Debian, the base from debootstrap. Does nothing where both are there.
set -euo pipefail
mkdir -p build
DOCKER=${DOCKER:-docker}
BASE=python:3.11-slim-bookworm

if ! "$DOCKER" info >/dev/null 2>&1; then
  command -v dockerd >/dev/null || { apt-get update -qq && apt-get install -y -qq docker.io >/dev/null; }
  rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid  # left by a daemon that was killed
  nohup dockerd --iptables=false --ip6tables=false --bridge=none >build/dockerd.log 2>&1 </dev/null &
  for _ in $(seq 60); do "$DOCKER" info >/dev/null 2>&1 && break; sleep 1; done
  "$DOCKER" info >/dev/null || { tail -5 build/dockerd.log; exit 1; }
fi
if ! "$DOCKER" image inspect "$BASE" >/dev/null 2>&1 && ! "$DOCKER" pull --quiet "$BASE" 2>/dev/null; then
  command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap >/dev/null; }
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >build/debootstrap.log
  tar -C "$root" -c . | "$DOCKER" import - "$BASE"
fi
