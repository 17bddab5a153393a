"""Fit and store the kernel bases that ship with the package. Run once; every checkpoint names the basis it needs."""

from __future__ import annotations

from sr_env.degradation import fit_bases

if __name__ == "__main__":
    fit_bases()
