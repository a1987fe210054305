"""Agents: networks and policies that act on observations. Import them as `multiravens.agents`."""

if __name__ == "agents":
    raise ImportError("no package is named 'agents' here: import multiravens.agents instead")
