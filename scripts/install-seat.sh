#!/bin/sh
# Install cloudlab with JupyterLab, and the system packages that a run needs, for all users of this
# Debian or Ubuntu system.  Needs root; running it again updates what is there.
#
#   scripts/install-seat.sh [FOLDER [REQUIREMENT...]]
#
# FOLDER        a Python environment, created if it is missing; default: /opt/cloudlab
# REQUIREMENT   further Python packages, e.g. 'jupyterhub==5.*' for a seat of such a hub
#
# .binder/Dockerfile, .devcontainer/devcontainer.json and docs/teaching-thirty.md run it.
set -eu
umask 022
if [ "$(id -u)" -ne 0 ]; then
  echo "This installs packages for all users. Run it as root: sudo $0" >&2
  exit 1
fi
cd "$(dirname "$0")/.."
folder=${1:-/opt/cloudlab}
[ $# -eq 0 ] || shift

export DEBIAN_FRONTEND=noninteractive
if ! command -v python3 > /dev/null; then
  apt-get update -qq
  apt-get install -y --no-install-recommends python3
fi
if [ -x "$folder/bin/python" ]; then
  "$folder/bin/python" -m cloudlab.prerequisites run
else
  python3 -m cloudlab.prerequisites venv run
  python3 -m venv "$folder"
fi
# As the Makefile does, with a copy of the package: learners need not see this folder.
PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  "$folder/bin/python" -m pip install --quiet --root-user-action ignore '.[notebook]' "$@"
if ! (cd / && setpriv --reuid=65534 --clear-groups "$folder/bin/cloudlab" --version > /dev/null); then
  echo "Only root can run $folder/bin/cloudlab. Its Python is $(readlink -f "$folder/bin/python")." >&2
  echo "Remove $folder and run this again with a Python of the system first in PATH." >&2
  exit 1
fi
ln -sf "$folder/bin/cloudlab" /usr/local/bin/cloudlab
echo "cloudlab is installed in $folder. 'cloudlab lab' opens the course, 'cloudlab doctor' checks this host."
