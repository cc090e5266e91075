#!/usr/bin/env bash
# Run the core of the test suite with exactly the lower bounds of requirements.txt, on Python 3.10.
#   bash tests/lower_bounds.sh [FOLDER [PYTEST ARGUMENTS...]]
# FOLDER, outside the repository, holds the environment and is used again; default ~/.cache/betrayed-by-attention/lower-bounds (6 GB with
# the GPU libraries of torch; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes torch without them).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
FOLDER="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/betrayed-by-attention/lower-bounds}"
shift $(($# > 0))
# Quick tests of everything that the programs do: data, network, training, evaluation, scoring, checkpoints.
CORE=(tests/data/test_{data,layouts,video_files,flow}.py tests/model/test_{motion,ranking,backbone,network,segmenter,budget,block,losses,clustering,bounds}.py
  tests/programs/test_{train,eval,launchers}.py
  tests/utils/test_{results,scoring,metrics,checkpoint,config,device,visual,requirements}.py)

fail() { echo "error: $1" >&2; exit 2; }
PYTHON310="$(command -v python3.10)" || fail "python3.10 is missing; put Python 3.10 on the PATH"
mkdir -p "$FOLDER"
FOLDER="$(cd "$FOLDER" && pwd)"
[[ "$FOLDER/" != "$ROOT"/* ]] || fail "$FOLDER: lies in the repository; give a folder outside it"

[ -x "$FOLDER/bin/python" ] || "$PYTHON310" -m venv "$FOLDER" || fail "$FOLDER: python3.10 -m venv failed"
grep -Eo '^[a-z0-9-]+>=[0-9.]+' "$ROOT/requirements.txt" | sed 's/>=/==/' > "$FOLDER/bounds.txt"
grep -Eo '^(pytest|pytest-xdist|hypothesis)>=[0-9.]+' "$ROOT/tests/requirements.txt" > "$FOLDER/tools.txt"
"$FOLDER/bin/python" -m pip install --disable-pip-version-check --quiet -r "$FOLDER/bounds.txt" -r "$FOLDER/tools.txt" \
  || fail "the lower bounds cannot be installed together; see pip's message above"
"$FOLDER/bin/python" "$ROOT/utils/requirements.py" "$ROOT/requirements.txt"
"$FOLDER/bin/python" -m pip freeze

cd "$ROOT"
export OMP_NUM_THREADS=1
exec "$FOLDER/bin/python" -m pytest -p no:cacheprovider "${CORE[@]}" "$@"
