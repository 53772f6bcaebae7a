"""DICOM images: what lies in a folder, how its slices stack, what their values mean. The way in is `series`."""
