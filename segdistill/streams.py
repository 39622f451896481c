"""What the sub-models are called."""

#: The network that is deployed.
PRIMARY = "primary"
#: The mean of all sub-models' logits, which is scored beside them.
ENSEMBLE = "ensemble"
