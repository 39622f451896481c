"""Primary stream, branches, the network they form, and the discriminator."""
