#!/bin/sh
# What `make` needs before it can set up anything else. Names what is missing, and how to get it.
python=${1:-python3}
missing() { echo "nvembed needs $1" >&2; exit 1; }
command -v cargo >/dev/null || missing 'Rust (cargo), see https://rustup.rs'
command -v cc >/dev/null || missing 'a C compiler for linking (cc, for example from gcc)'
command -v "$python" >/dev/null || missing "Python 3.11 or newer ($python not found; choose one with make PYTHON=...)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "Python 3.11 or newer, $python is $("$python" --version)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing 'Python with venv (on Debian: apt install python3-venv)'
