"""Networks, torch half: MONAI encoders, head layers and their losses."""
