"""How good a defence is; needs the ground truth."""
