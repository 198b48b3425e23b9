#!/bin/sh
# Install what one of make's targets needs and this machine lacks.
# usage: setup.sh venv|dev|run|test|bench|peers
#
# What is there already is not touched and costs nothing, so that every target can begin with this,
# and works without a network from the second time on.
set -eu
cd "$(dirname "$0")/.."
goal=${1:?usage: setup.sh venv|dev|run|test|bench|peers}
log=.cache/setup.log
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'ketch: %s\n' "$*"; }
fail() {
    printf 'ketch: %s\n' "$*" >&2
    exit 1
}

# install_missing PROGRAM=PACKAGE...: PROGRAM is a command, or a path when it has a slash.
install_missing() {
    missing=
    for pair in "$@"; do
        case ${pair%%=*} in
            */*) ls ${pair%%=*} >/dev/null 2>&1 || missing="$missing ${pair#*=}" ;;
            *) command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}" ;;
        esac
    done
    [ -z "$missing" ] || install_packages $missing
}

install_packages() {
    command -v apt-get >/dev/null || fail "this is not Debian: install what these packages hold: $*"
    [ "$(id -u)" -eq 0 ] || fail "missing packages: $*. Run this once as root, or: apt-get install $*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt='apt-get -qq -o Acquire::Retries=2 -o DPkg::Lock::Timeout=300'
    { $apt update && $apt install -y --no-install-recommends "$@"; } >>"$log" 2>&1 </dev/null ||
        fail "cannot install $* (offline?): $(sed -n 's/^E: //p' "$log" | head -n 1) Details: $log"
}

# The interpreter: PYTHON, else the system's own (a python3 in PATH may be a version manager's
# shim), else python3.
choose_python() {
    for python in ${PYTHON:-} /usr/bin/python3 python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    fail "ketch needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3"
}

make_venv() {
    if [ ! -x .venv/bin/ketch ] || [ -n "$(find pyproject.toml bin -newer .venv/.ketch 2>&1)" ]; then
        choose_python
        "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        say "making .venv with ketch in it"
        "$python" -m venv .venv >>"$log" 2>&1 || fail "cannot make .venv: see $log"
        pip_install -e .
        # It would run at every start of this interpreter, and nothing here needs it.
        .venv/bin/python -m pip uninstall -q -y setuptools >>"$log" 2>&1 || true
        touch .venv/.ketch
    fi
    # As pip does with what it copies: where PYTHONDONTWRITEBYTECODE is set, each command would
    # compile all of a checkout anew.
    .venv/bin/python -m compileall -q src
}

make_development_venv() {
    make_venv
    if [ ! -e .venv/.dev ] || [ .venv/.ketch -nt .venv/.dev ]; then
        say "adding the test tools to .venv"
        pip_install -e '.[dev]'
        touch .venv/.dev
    fi
}

pip_install() {
    .venv/bin/python -m pip --disable-pip-version-check install -q "$@" >>"$log" 2>&1 </dev/null ||
        fail "cannot install Python packages (offline?): $(sed -n 's/^ERROR: //p' "$log" | tail -n 1) Details: $log"
}

# What is installed from now on must start no daemon, which could change this machine's network.
start_no_daemons() {
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

run_packages() {
    install_missing nft=nftables busybox=busybox-static '/usr/lib/*/libseccomp.so.2=libseccomp2'
}

# Debian 13 with the peers that people have today, as a tree that the tests enter; nothing of it is
# installed or started on this machine. Made once, and again when what belongs into it changes.
make_peers_tree() {
    tree=.cache/peers-trixie
    packages=docker.io,docker-cli,docker-buildx,docker-compose,podman,buildah,runc,crun,criu,passt
    packages=$packages,containerd,containernetworking-plugins,skopeo,umoci,iptables,nftables,iproute2,conntrack,uidmap
    packages=$packages,netavark,aardvark-dns,procps,kmod,fuse-overlayfs,ca-certificates,python3,libseccomp2
    [ "$(cat "$tree.packages" 2>/dev/null)" != "$packages" ] || return 0
    say "making a tree of Debian 13 with docker, podman and others of today (once, two minutes)"
    rm -rf --one-file-system "$tree" "$tree.new"
    # What an interrupted mmdebstrap leaves mounted goes with the mount namespace.
    unshare --mount --propagation private mmdebstrap --variant=minbase --include="$packages" \
        trixie "$tree.new" >>"$log" 2>&1 </dev/null ||
        fail "cannot make a tree of Debian 13 (offline?): $(sed -n 's/^E: //p' "$log" | tail -n 1) Details: $log"
    mv "$tree.new" "$tree"
    printf '%s' "$packages" >"$tree.packages"
}

case $goal in
    run | test | bench | peers)
        [ "$(id -u)" -eq 0 ] || fail "make $goal needs root, for packages, mounts and network links: run it as root"
        ;;
esac
{ mkdir -p .cache && printf '' >"$log"; } 2>/dev/null || fail "make $goal cannot write into $PWD as $(id -un)"

case $goal in
    venv) make_venv ;;
    dev) make_development_venv ;;
    run)
        run_packages
        make_venv
        ;;
    test)
        run_packages
        start_no_daemons
        install_missing curl=curl ip=iproute2 iptables-nft=iptables skopeo=skopeo mmdebstrap=mmdebstrap \
            docker-registry=docker-registry openssl=openssl fuse-overlayfs=fuse-overlayfs \
            qemu-system-x86_64=qemu-system-x86 mke2fs=e2fsprogs depmod=kmod strace=strace \
            newuidmap=uidmap git=git pasta=passt slirp4netns=slirp4netns patch=patch
        make_development_venv
        ;;
    bench)
        run_packages
        start_no_daemons
        install_missing ip=iproute2 skopeo=skopeo mmdebstrap=mmdebstrap docker-registry=docker-registry
        make_development_venv
        ;;
    peers)
        start_no_daemons
        install_missing dockerd=docker.io podman=podman runc=runc crun=crun skopeo=skopeo \
            /usr/lib/podman/netavark=netavark umoci=umoci docker-registry=docker-registry \
            docker-compose=docker-compose criu=criu hyperfine=hyperfine zsh=zsh fish=fish \
            mmdebstrap=mmdebstrap
        make_peers_tree
        ;;
    *) fail "unknown goal $goal" ;;
esac

