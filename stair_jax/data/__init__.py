"""Input data: readers, public data sets, mixtures, sequence packing, tries of shared prefixes."""
