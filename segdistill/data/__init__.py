"""Label taxonomies, data sets, augmentation and deterministic loading."""
