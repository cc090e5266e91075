"""Find the objects of a clip from Python and save their masks.

python docs/example.py clip.mp4 masks
"""

import sys

import numpy as np

from selfvos import Predictor

clip, folder = sys.argv[1:3]
predictor = Predictor.from_pretrained("embedded", device="cpu")

result = predictor.segment(clip)
print(f"masks {result.masks.shape}, network at {result.resolution}, {sum(result.seconds.values()):.1f} s")
for proposal in result.proposals[:3]:
    print(f"object {proposal.id}: score {proposal.score:.3g}, frames {proposal.first} to {proposal.last}")
result.save(folder)

# What the middle of the best object attends to in the key frames
best = result.masks == 1
frame = int(best.any(axis=(1, 2)).argmax())  # the first that shows it
rows, columns = np.nonzero(best[frame])
middle = len(rows) // 2
attention = predictor.attention(result, frame=frame, point=(columns[middle], rows[middle]))
print(
    f"attention {attention.shape}, sum {attention.sum():.3f}, strongest in key frame {attention.sum((1, 2)).argmax()}"
)

# Frames as they come: clusters, which are not ranked
for index, labels in enumerate(predictor.stream(result.source.read(), tau=result.tau)):
    print(f"frame {index}: {len(np.unique(labels))} clusters")
