"""Work on data for which a model is needed: choosing what to train on, and making it."""
