"""What hospital systems exchange about an image: SEG, RTSTRUCT, SR, and de-identification. The way in is `exchange`."""
