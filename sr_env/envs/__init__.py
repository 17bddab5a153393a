"""Gymnasium's and Stable-Baselines3's view of the simulator."""
