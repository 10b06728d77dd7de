#!/usr/bin/env bash
# Make the phantoms of the set full_wave: install an environment outside the repository, and run make_phantoms.py in it.
# Arguments are handed to make_phantoms.py. PYTHON names the interpreter (3.11 or newer), FULL_WAVE_ENV the environment's
# folder. The environment holds odtbrain, which uses FFTW (GPL). Cytovox neither imports nor installs it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
environment=${FULL_WAVE_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/cytovox/full_wave_env}
installed=$environment/requirements.txt # a copy, written once everything is installed

if ! cmp -s "$here/requirements.txt" "$installed"; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "$python: expected Python 3.11 or newer; name another one: PYTHON=python3.11 $0" >&2
        exit 2
    }
    "$python" -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$installed"
fi
exec "$environment/bin/python" "$here/make_phantoms.py" "$@"
