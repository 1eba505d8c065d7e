"""Evaluate a model on a data set, and predict the classes of images."""
