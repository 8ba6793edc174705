#!/usr/bin/env bash
# One command that says yes or no; CI runs the same.
exec "$(dirname "$0")/../.ci/run"
