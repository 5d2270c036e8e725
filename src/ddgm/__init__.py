"""Tomographic reconstruction from limited-angle tilt series with a diffusion prior (DDGM)."""
