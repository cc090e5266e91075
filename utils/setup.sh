# Sourced by the launchers and tests/run.sh: sets PYTHON to an interpreter whose packages satisfy a requirements file.
# Uses the current python3 if it does; otherwise .venv, made and filled once.
#   . utils/setup.sh requirements.txt "$@"       # "$@": of the program, if several processes may run it

trap 'echo interrupted >&2; exit 130' INT  # until the program runs, which says so itself

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_requirements="$_root/${1:-requirements.txt}"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "error: python3 is missing or older than 3.10; put Python 3.10 or newer on the PATH" >&2
  exit 2
fi
_satisfied() { "$1" "$_root/utils/requirements.py" "$_requirements"; }

if _missing="$(_satisfied python3 2>&1)"; then
  PYTHON=python3
else
  PYTHON="$_root/.venv/bin/python"
  if ! _satisfied "$PYTHON" 2>/dev/null; then
    echo "set-up: packages of $(command -v python3) are ${_missing##*$'\n'}" >&2
    echo "set-up: installing the packages of $_requirements into .venv (once, a few minutes, some GB with torch)" >&2
    python3 -m venv "$_root/.venv" || { echo "error: python3 -m venv failed; install Python's venv module" >&2; exit 2; }
    "$PYTHON" -m pip install --disable-pip-version-check -r "$_requirements" >&2 \
      || { echo "error: packages could not be installed; see pip's message above" >&2; exit 2; }
    _satisfied "$PYTHON" || { echo "error: .venv still lacks the packages above; remove .venv and run again" >&2; exit 2; }
  fi
fi

# One process per visible GPU, and one for --help: torchrun where there are several.
_gpus="$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)"
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then  # which may name GPUs that are not there, by number or by UUID
  _known="$(command -v nvidia-smi >/dev/null && echo "$_gpus" || echo 9999)"  # containers can lack the program
  _gpus="$(printf '%s' "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | awk -v known="$_known" '/./ && !(/^[0-9]+$/ && $0 >= known)' | wc -l)"
  [ "$_gpus" -le "$_known" ] || _gpus="$_known"
fi
case " ${*:2} " in *" --help "* | *" -h "*) _gpus=1 ;; esac
LAUNCH=("$PYTHON")
if [ "$_gpus" -gt 1 ]; then
  LAUNCH=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$_gpus")
  # USR1, by which Slurm announces the end of a job, has to be handed on to the processes; older torch cannot.
  # Its source is read, since importing it takes seconds.
  if grep -q signals_to_handle "$("$PYTHON" -c 'import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])')/distributed/run.py" 2>/dev/null; then
    LAUNCH+=(--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1)
  fi
fi
# How many threads each process has and how they wait, also of torchrun, which would give each process one.
eval "$("$PYTHON" "$_root/utils/threads.py" "$_gpus")"
