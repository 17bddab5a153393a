"""Agents that learn the kernel code by reward, and what measures them."""
