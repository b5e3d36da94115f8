#!/bin/sh
# Runs a command with one NVIDIA GPU (an RTX 4090) in the list of PCI devices, which is where ONNX Runtime looks for the devices
# that it offers to plugins. The list is another one in a mount namespace of the command's own: this needs root.
exec unshare -m sh -c '
    set -e
    mount -t tmpfs none /sys/bus/pci/devices
    device=/sys/bus/pci/devices/0000:01:00.0
    mkdir "$device"
    echo 0x10de >"$device/vendor"
    echo 0x2684 >"$device/device"
    echo 0x030000 >"$device/class"
    echo 1 >"$device/boot_vga"
    exec "$@"' sh "$@"
