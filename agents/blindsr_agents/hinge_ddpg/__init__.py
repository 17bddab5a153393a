"""HingeDDPG: the paper's agent."""
