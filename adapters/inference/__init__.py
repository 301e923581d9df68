"""Inference: runner processes and what supervises them, the model registry, the starter model, a scripted engine."""
