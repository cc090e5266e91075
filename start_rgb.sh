#!/usr/bin/env bash
# Train the spatio-temporal block on video, without labels. Without flags: generated videos, the backbone in assets/.
#   bash start_rgb.sh
#   bash start_rgb.sh --basepath VIDEOS --dino_path dino_deitsmall8_pretrain.pth
# Edit the flags below or give them on the command line, which wins. All flags: bash start_rgb.sh --help
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$ROOT/utils/setup.sh" requirements.txt "$@"

FLAGS=(
  # --config "$ROOT/configs/davis17_dino_s8.yaml"
  # --dataset davis17u --basepath /data/DAVIS
  # --dino_path /data/dino_deitsmall8_pretrain.pth
  # --resolution 192 384
  # --output_path outputs/train
)
exec "${LAUNCH[@]}" "$ROOT/train.py" ${FLAGS[@]+"${FLAGS[@]}"} "$@"
