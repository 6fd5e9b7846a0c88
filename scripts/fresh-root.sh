#!/bin/sh
# Run make targets as a new user would: in a new root filesystem of Debian with nothing but
# Python, make and git.  Needs root, mmdebstrap and unshare.
#
#   scripts/fresh-root.sh SUITE TARGET...     e.g. scripts/fresh-root.sh trixie demo test
#   scripts/fresh-root.sh SUITE seat          scripts/install-seat.sh, in a root without Python even,
#                                             and what a learner does first, as an ordinary user
#
# FRESH_USER=1         as an ordinary user without sudo, once root has installed the packages
# FRESH_FOLDERS=A:B    folders of this host that the new root sees too, such as a package index
# FRESH_ROOT=DIR       use this root again, or make it and keep it
set -eu
suite=$1
shift
repository=$(cd "$(dirname "$0")/.." && pwd)
root=${FRESH_ROOT:-$(mktemp -d /var/tmp/cloudlab-fresh.XXXXXX)}
[ -n "${FRESH_ROOT:-}" ] || trap 'rm -rf --one-file-system "$root"' EXIT
# A signal alone would not run that.
trap 'exit 130' INT TERM HUP

include=ca-certificates,passwd
[ "$*" = seat ] || include=$include,python3,python3-venv,make,git

if [ ! -e "$root/etc/apt/sources.list" ]; then
  # The mirror that this host's apt uses; the date of sid's index may have passed on a mirror.
  # shellcheck disable=SC2016  # apt's own variables
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1)
  old='Acquire::Check-Valid-Until "false";'
  mmdebstrap --quiet --variant=apt --aptopt="$old" \
    --include="$include" \
    "$suite" "$root" ${mirror:+"$mirror"}
  echo "$old" > "$root/etc/apt/apt.conf.d/90valid"
  # What this host's pip and its certificates are told.
  for file in /etc/ssl/certs/ca-certificates.crt /etc/resolv.conf /etc/pip.conf; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
  done
  chroot "$root" useradd --create-home learner
fi

home=/root
[ -z "${FRESH_USER:-}" ] || home=/home/learner
rm -rf "$root$home/cloudlab"
if [ -e "$HOME/.config/pip/pip.conf" ]; then
  mkdir -p "$root$home/.config/pip"
  cp -L "$HOME/.config/pip/pip.conf" "$root$home/.config/pip/"
fi
git clone --quiet --no-hardlinks "$repository" "$root$home/cloudlab"
cat > "$root/fresh" <<'SCRIPT'
set -eu
cd "$HOME/cloudlab"
as_learner="setpriv --reuid=learner --regid=learner --init-groups"
if [ "$*" = seat ]; then
  scripts/install-seat.sh
  # Again, as an update does.
  scripts/install-seat.sh
  export HOME=/home/learner PATH=/usr/local/bin:$PATH
  cd
  $as_learner cloudlab doctor
  $as_learner cloudlab lab --copy-only
  cd cloudlab-course
  for notebook in 0*.ipynb; do
    CLOUDLAB_MODE=replay $as_learner /opt/cloudlab/bin/jupyter nbconvert --log-level WARN \
      --to notebook --execute --stdout "$notebook" > /dev/null
    echo "$notebook ran on recordings."
  done
  exit
fi
if [ "$HOME" = /root ]; then
  exec make "$@"
fi
apt-get update -qq
export DEBIAN_FRONTEND=noninteractive
python3 -m cloudlab.prerequisites venv run build test
# Only ordinary users need it, so root's set-up leaves it out.
apt-get install -qq -y --no-install-recommends uidmap > /dev/null
chown -R learner: "$HOME"
exec $as_learner make "$@"
SCRIPT

# In namespaces of its own, so that its mounts and processes end with it.
export root home
# shellcheck disable=SC2016  # for the inner shell
unshare --mount --pid --fork --kill-child --propagation private sh -eu -c '
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  IFS=:
  for folder in ${FRESH_FOLDERS:-}; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
  done
  unset IFS XDG_CACHE_HOME CLOUDLAB_CACHE TMPDIR VIRTUAL_ENV
  if [ "$home" != /root ]; then
    # In a chroot the kernel lets no ordinary user make a user namespace, as a build does.
    cd "$root"
    mkdir -p old
    pivot_root . old
    root=/
    umount -l /old
  fi
  exec chroot "$root" /usr/bin/env HOME="$home" PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /fresh "$@"
' run "$@"
