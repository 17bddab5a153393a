"""HingeDDPG over several corrections of the code."""
