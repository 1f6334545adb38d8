"""Tests of how the project is installed, packaged and released."""
