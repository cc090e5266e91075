#!/usr/bin/env bash
# Segment whole videos and score them. Without flags: generated videos (Sprites), with the backbone in assets/.
#   bash start_eval.sh
#   bash start_eval.sh clip.mp4          # or other video files, folders of frames, folders of either
#   bash start_eval.sh --davis_path DAVIS --dino_path dino_deitsmall8_pretrain.pth --resume_path outputs/train/last.pt
# Edit the flags below or give them on the command line, which wins. All flags: bash start_eval.sh --help
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$ROOT/utils/setup.sh" requirements.txt "$@"

FLAGS=(
  # --config "$ROOT/configs/davis17_dino_s8.yaml"
  # --davis_path /data/DAVIS
  # --dino_path /data/dino_deitsmall8_pretrain.pth
  # --resume_path outputs/train/last.pt
  # --resolution 320 480
)
exec "${LAUNCH[@]}" "$ROOT/eval.py" ${FLAGS[@]+"${FLAGS[@]}"} "$@"
