"""Task modules and their parameters."""
