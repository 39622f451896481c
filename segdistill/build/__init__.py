"""From a `Config` to the objects of a run, and the only package that knows both.

splits          classes, files of each split, and the check of every one of them
datasets        what training and evaluation read, augmented and normalised
training_data   the same for one process of a training: checked, in its order, by loaders
network         primary and branches, and how the primary is rebuilt in plain smp
objective       the loss terms and the discriminator
training        device, optimisers, the state a run begins with, the loop's settings
"""
