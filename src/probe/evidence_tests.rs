//! Evidence of real failures on this machine.
