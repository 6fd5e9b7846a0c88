#!/bin/sh
# What cloudlab does on this Mac, in one text file for a bug report.
#
#   tests/mac-check.sh              everything: it fetches an image of some 600 MB if there is
#                                   none, and boots machines for some minutes
#   tests/mac-check.sh --no-boot    only what needs neither an image nor a boot
#
# The file is mac-check.txt in the present folder; --output FILE writes another.  --image NAME boots
# another image of 'cloudlab images'.
#
# It needs Python 3.11 or newer and Homebrew's qemu, and says so if they are missing.  It installs
# nothing but a virtual environment in this clone (.venv), changes no settings, and ends only what it
# started.  In the text, ~ stands for your home folder.
set -u

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; }

boot=yes output=mac-check.txt image=
while [ $# -gt 0 ]; do
    case $1 in
        --no-boot) boot=no ;;
        --output) output=${2:?"--output needs a file"}; shift ;;
        --image) image=${2:?"--image needs a name"}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
case $output in /*) ;; *) output=$PWD/$output ;; esac
cd "$(dirname "$0")/.." || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/mac-check.XXXXXX") || exit 1
cleanup() { rm -rf "$scratch"; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
tmp=${TMPDIR:-/tmp}

section() { printf '\n== %s ==\n' "$*"; }

# Print a command, what it prints and how it ended; never fail.
show() {
    printf '$ %s\n' "$*"
    if ! command -v "$1" > /dev/null 2>&1; then
        echo "(not on this system)"
        return 0
    fi
    begun=$(date +%s)
    "$@" < /dev/null 2>&1
    ended=$?
    took=$(($(date +%s) - begun))
    [ $ended = 0 ] && [ $took -lt 2 ] || printf '(exit code %s, %s s)\n' "$ended" "$took"
    return 0
}

setup() {
    if [ -n "${PYTHON:-}" ] && "$PYTHON" -c 'import psutil, msgspec' 2> /dev/null; then
        python=$PYTHON
    else
        show make .venv/installed
        python=$PWD/.venv/bin/python
    fi
}

cloudlab() { "$python" -m cloudlab "$@"; }

about_system() {
    section system
    show sw_vers
    show uname -srm
    for name in machdep.cpu.brand_string hw.memsize hw.ncpu kern.hv_support \
        sysctl.proc_translated kern.bootsessionuuid; do
        show sysctl -n "$name"
    done
    show df -h "$tmp"
    show getconf OPEN_MAX
    echo "length of TMPDIR: ${#tmp}"
    : > "$scratch/case"
    if [ -e "$scratch/CASE" ]; then echo "file names: case ignored"; else echo "file names: case matters"; fi
    section Homebrew
    show brew --version
    show brew --prefix
    show brew list --versions qemu gnupg e2fsprogs
    for program in brew qemu-system-aarch64 qemu-system-x86_64 qemu-img qemu-nbd gpgv python3 make; do
        printf '%s: %s\n' "$program" "$(command -v $program || echo missing)"
    done
    prefix=$(brew --prefix 2> /dev/null || echo /usr)
    for descriptor in "$prefix"/share/qemu/firmware/*.json; do
        [ -e "$descriptor" ] || continue
        echo "$descriptor"
        sed -n 's/.*"filename": "\(.*\)".*/\1/p' "$descriptor" | while read -r file; do
            if [ -e "$file" ]; then echo "  $file"; else echo "  $file: MISSING"; fi
        done
    done
}

about_qemu() {
    section QEMU
    for program in qemu-system-aarch64 qemu-system-x86_64; do
        path=$(command -v $program) || continue
        show "$program" --version
        show "$program" -accel help
        show "$program" -machine none -sandbox on -display none -monitor none -version
        show codesign --display --entitlements - "$path"
    done
}

about_python() {
    section Python
    show "$python" -c 'import ssl, sys; print(sys.version); print(ssl.get_default_verify_paths())'
    show "$python" -c 'from cloudlab import platforms; print(platforms.describe())'
    show "$python" -c '
from cloudlab import platforms, tools
print("boot", platforms.boot_id() != "unknown", "cores", platforms.usable_cores())
print("accelerator", platforms.hardware_accelerator(), "socket folder", platforms.socket_folder("x" * 23))
for arch in ("amd64", "arm64"):
    print(arch, "firmware", tools.find_uefi(arch))'
    show "$python" -m cloudlab.prerequisites run
    section doctor
    show "$python" -m cloudlab doctor --json --refresh
    echo "-- as launchd or a desktop starts programs, without Homebrew in PATH:"
    show env -i HOME="$HOME" TMPDIR="$tmp" PATH=/usr/bin:/bin \
        ${PYTHONPATH:+PYTHONPATH="$PYTHONPATH"} "$python" -m cloudlab doctor --json
    section lab
    show "$python" -m cloudlab lab --copy-only --folder "$scratch/course"
    section replay
    show "$python" -m cloudlab explain default
}

# Each accelerator's probe by itself, with QEMU's own words.
about_accelerators() {
    section accelerators
    show "$python" -c '
from cloudlab import tools
from cloudlab.errors import CloudlabError
from cloudlab.machine.accel import probe
from cloudlab.machine.config import Accel
for arch in ("arm64", "amd64"):
    for accel in (Accel.HVF, Accel.TCG):
        for sandbox in (True, False):
            try:
                print(arch, accel, "sandbox" if sandbox else "no sandbox",
                      f"{probe(arch, accel, sandbox=sandbox):.2f} s")
            except CloudlabError as error:
                print(arch, accel, "sandbox" if sandbox else "no sandbox", error)'
}

boots() {
    section image
    show cloudlab fetch ${image:+"$image"}
    for way in "hvf cold" "tcg cold" "tcg auto" "tcg auto"; do
        section "boot: $way"
        rm -rf "$scratch/run"
        show cloudlab run ${image:+--image "$image"} --accel "${way% *}" --start "${way#* }" \
            --disk-size 6G --timeout 900 --output "$scratch/run"
        show cloudlab explain "$scratch/run"
        [ -e "$scratch/run/console.log" ] && show tail -n 15 "$scratch/run/console.log"
    done
}

# Machines of this script only: their run folders are in its own folder.
machines() {
    cloudlab ps --json 2> /dev/null | "$python" -c '
import json, sys
for one in json.load(sys.stdin):
    if one["run_folder"].startswith(sys.argv[1]):
        print(one["owner_pid"], one["supervisor_pid"], one["qemu_pid"])' "$(cd "$scratch" && pwd -P)"
}

# Kill the owner of a machine, or its supervisor, or both; say what is left five seconds later.
kills() {
    for victims in owner supervisor both; do
        section "kill -9: $victims"
        "$python" -m cloudlab run ${image:+--image "$image"} --start cold --disk-size 6G \
            --output "$(cd "$scratch" && pwd -P)/killed-$victims" > "$scratch/killed" 2>&1 &
        starter=$!
        background=$starter
        tries=0
        until found=$(machines) && [ -n "$found" ]; do
            tries=$((tries + 1))
            if [ $tries -gt 60 ] || ! kill -0 $starter 2> /dev/null; then break; fi
            sleep 1
        done
        if [ -z "$found" ]; then
            echo "no machine started"
            cat "$scratch/killed"
            kill $starter 2> /dev/null
            wait $starter 2> /dev/null
            continue
        fi
        read -r owner supervisor qemu <<END
$found
END
        echo "owner $owner, supervisor $supervisor, QEMU $qemu"
        show ps -o pid,ppid,pgid,stat,comm -p "$owner,$supervisor,$qemu"
        case $victims in
            owner) kill -9 "$owner" ;;
            supervisor) kill -9 "$supervisor" ;;
            both) kill -STOP "$owner"; kill -9 "$supervisor"; sleep 1; kill -9 "$owner" ;;
        esac
        sleep 5
        echo "-- five seconds later:"
        for pid in "$owner" "$supervisor" "$qemu"; do
            ps -o pid,ppid,stat,comm -p "$pid" | sed 1d
        done
        kill $starter 2> /dev/null
        wait $starter 2> /dev/null
        show cloudlab ps
        ls -A "$scratch/killed-$victims" 2> /dev/null
    done
}

share() {
    section share
    "$python" -m cloudlab share --address 127.0.0.1 --port 0 > "$scratch/share" 2>&1 &
    server=$!
    background=$server
    sleep 5
    kill -TERM $server 2> /dev/null
    wait $server
    printf '(exit code %s)\n' $?
    grep -v '[█▀▄]' "$scratch/share" | head -n 20
}

everything() {
    background=
    trap '[ -z "$background" ] || kill $background 2> /dev/null; exit 130' INT TERM HUP
    echo "mac-check of $(git log -1 --format='%h %cs' 2> /dev/null || echo 'an unknown version'), $(date -u +%Y-%m-%dT%H:%MZ)"
    section setup
    setup
    about_system
    about_qemu
    about_python
    if [ $boot = no ]; then
        section boots
        echo "left out (--no-boot)"
    else
        about_accelerators
        boots
        kills
        share
    fi
    section end
}

everything 2>&1 | sed "s|$HOME|~|g" | tee "$output"
echo "Written to $output. Please read it, then attach it to an issue."
