#!/bin/sh
# Static analysis. Needs `npm ci` here and slither on the PATH (`pip install slither-analyzer==0.11.6`, best in a
# virtual environment of its own). The exit status is not 0 if there is any finding that no comment answers.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/node_modules/.bin:$PATH" exec slither .
