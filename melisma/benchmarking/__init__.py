"""``melisma bench``: how fast every generator is on this machine, and what of the machine that uses."""
