"""The machine: which accelerator really works, QEMU's arguments, its life and its end."""
