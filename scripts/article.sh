#!/bin/sh
# The article's own steps, as a yardstick: genisoimage, qemu-img, QEMU, wait for df's output.
#   article.sh IMAGE ACCELERATOR FOLDER [EXTRA LINES OF USER-DATA]
# Ends QEMU at the last line that runcmd prints.
set -eu
image=$1 accelerator=$2 folder=$3 extra=${4-}
cpu=host
[ "$accelerator" != tcg ] || cpu=max,cx16=off
cd "$folder"
qemu-img create -q -f qcow2 -F qcow2 -b "$image" disk.qcow2 20G
printf 'instance-id: article-%s\nlocal-hostname: article\n' "$$" > meta-data
printf '#cloud-config\n%s\nruncmd:\n- [lsblk]\n- [df, -h]\n- [echo, "end of the article"]\n' \
    "$extra" > user-data
genisoimage -quiet -output seed.iso -volid cidata -joliet -rock user-data meta-data
mkfifo console
qemu-system-x86_64 -m 1024 -accel "$accelerator" -cpu "$cpu" -display none -serial file:console \
    -drive file=disk.qcow2,if=virtio,format=qcow2 -drive file=seed.iso,if=virtio,format=raw &
qemu=$!
trap 'kill "$qemu" 2> /dev/null; wait "$qemu" 2> /dev/null || true' EXIT
trap 'exit 130' INT TERM HUP
tee console.log < console | grep -q -m 1 'end of the article'
