"""Checkpoints and tables of other NLA projects: the reference's folders and PEFT folders."""
