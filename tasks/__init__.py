"""Task modules: one file a module. Import them as `multiravens.tasks`."""

if __name__ == "tasks":
    raise ImportError("no package is named 'tasks' here: import multiravens.tasks instead")
