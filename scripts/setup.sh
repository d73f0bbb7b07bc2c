#!/usr/bin/env bash
# Makes .venv in the project's root and installs everything that training and testing need. A second call does nothing.
#
#   scripts/setup.sh [--with-ffcv|--without-ffcv] [--browser] [--python PATH]
#
#   --without-ffcv   leave out FFCV, which has to be compiled: writing betons and streaming then aren't possible,
#                    training from an existing beton, from Parquet or from the other sources is; later calls
#                    remember it, and --with-ffcv adds it after all
#   --browser        a Chromium for the test that opens the report, where apt has one (that test is skipped without)
#   --python PATH    the Python to use (3.10 or later); otherwise the first one found that can compile extensions
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

APT_PACKAGES="g++ pkg-config libopencv-dev libturbojpeg0-dev python3-dev python3-venv"
ffcv= browser=no python=

stop() { printf 'setup: %s\n' "$@" >&2; exit 2; }
say() { printf 'setup: %s\n' "$@"; }

while [ $# -gt 0 ]; do
    case "$1" in
        --with-ffcv) ffcv=yes ;;
        --without-ffcv) ffcv=no ;;
        --browser) browser=yes ;;
        --python) [ $# -gt 1 ] || stop "--python needs the path of a Python"; python=$2; shift ;;
        -h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) stop "unknown option $1 (there are --with-ffcv, --without-ffcv, --browser and --python PATH)" ;;
    esac
    shift
done

# ---- what is there -----------------------------------------------------------------------------------------------

recent() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
has_headers() {
    "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

# The first Python of 3.10 or later that can make a venv; one with headers comes first, since FFCV is compiled.
find_python() {
    local candidate fallback=
    for candidate in ${python:-python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3}; do
        command -v "$candidate" >/dev/null && recent "$candidate" || continue
        if has_headers "$candidate"; then command -v "$candidate"; return; fi
        fallback=${fallback:-$(command -v "$candidate")}
    done
    printf '%s' "$fallback"
}

can_compile() {
    command -v g++ >/dev/null && command -v pkg-config >/dev/null && pkg-config --exists opencv4 libturbojpeg \
        && has_headers "$1"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
may_apt() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }
apt_install() {
    say "installing with apt: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing_tools() {
    cat >&2 <<TEXT
setup: FFCV has to be compiled and this machine lacks a C++ compiler, pkg-config, OpenCV, libjpeg-turbo or Python's headers.
  apt (as root):  apt-get install $APT_PACKAGES
  conda:          conda install -c conda-forge cxx-compiler pkg-config opencv libjpeg-turbo
  Homebrew:       brew install pkg-config opencv jpeg-turbo
Then call scripts/setup.sh again; or call scripts/setup.sh --without-ffcv to train without FFCV.
TEXT
    exit 2
}

install_browser() {
    [ $browser = yes ] || return 0
    for name in chromium chromium-browser google-chrome; do command -v $name >/dev/null && return 0; done
    # Ubuntu's package is a snap, which needs more than apt
    if may_apt && grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
        apt_install chromium || say "no browser could be installed: the test of the report's page will be skipped"
    fi
}

# ---- nothing to do? ----------------------------------------------------------------------------------------------

stamp=.venv/.setup-stamp
found=$(cat $stamp 2>/dev/null || true)
ffcv=${ffcv:-$(case "$found" in *ffcv=no) echo no ;; *) echo yes ;; esac)}
wanted="$(cat setup.py scripts/setup.sh fastresnet/__init__.py | cksum) ffcv=$ffcv"
if [ -z "$python" ] && [ "$found" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    install_browser
    exit 0
fi

# ---- a Python and its environment --------------------------------------------------------------------------------

[ -z "$python" ] || recent "$python" || stop "$python isn't a Python 3.10 or later with venv"
chosen=$(find_python)
if [ -z "$chosen" ] && may_apt; then
    apt_install python3 python3-venv python3-dev
    chosen=$(find_python)
fi
[ -n "$chosen" ] || stop "no Python 3.10 or later with venv was found: install one, then call this again"

if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || [ -n "$python" ]; then
    say "making .venv with $chosen ($("$chosen" -V 2>&1))"
    rm -rf .venv
    "$chosen" -m venv .venv
fi
rm -f $stamp

# ---- what FFCV's build needs, unless pip is set up with a wheel of it ----------------------------------------------

extras=dev
if [ $ffcv = yes ]; then
    extras=ffcv,dev
    if ! .venv/bin/python -c 'import importlib.metadata as m; m.version("ffcv")' 2>/dev/null && ! can_compile .venv/bin/python; then
        wheels=$(mktemp -d)
        if .venv/bin/python -m pip download -q --no-deps --only-binary :all: -d "$wheels" 'ffcv>=1.0.2' >/dev/null 2>&1; then
            say "pip has a compiled FFCV: nothing to build"
        elif may_apt; then
            # shellcheck disable=SC2086  # a list of packages
            apt_install $APT_PACKAGES
            can_compile .venv/bin/python || missing_tools
        else
            rm -rf "$wheels"
            missing_tools
        fi
        rm -rf "$wheels"
    fi
fi

say "installing the package and what it needs (PyTorch is large: this takes some minutes)"
.venv/bin/python -m pip install -q -e ".[$extras]"

# ---- does it work? -----------------------------------------------------------------------------------------------

.venv/bin/python - "$ffcv" <<'CHECK'
import sys

try:
    import torch
    import torchvision
except RuntimeError as error:
    sys.exit(f"setup: torch and torchvision don't fit together ({error}): install both from the same place")
import fastresnet

names = [f"fastresnet {fastresnet.__version__}", f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"]
if sys.argv[1] == "yes":
    import importlib.metadata

    import ffcv.loader  # noqa: F401 - the import is the test
    names.append(f"ffcv {importlib.metadata.version('ffcv')}")
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"setup: ready: {', '.join(names)}; Python {sys.version.split()[0]}; {device}")
CHECK
install_browser
printf '%s' "$wanted" > $stamp
