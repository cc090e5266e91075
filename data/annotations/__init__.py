"""Read annotations as the data sets store them: label images, binary masks, FBMS originals, RLE, TFRecords.

Every class here implements `utils.scoring.annotations.Annotations`: label maps with 0 for background, objects from 1
and 255 for void. The objects hold paths, not pixels, and can be pickled.
"""
