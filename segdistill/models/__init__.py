"""Primary stream, branches, the ensemble they form, and the discriminator."""
