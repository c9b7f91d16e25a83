#!/usr/bin/env bash
# A Docker engine on a machine that has none, and stand-ins for the base images that cannot be pulled there.
#
#   engine.sh start     install the engine and Compose v2 from Debian's packages, start dockerd, make the base images
#   engine.sh env       print the `export` line that points `docker` at it, and its builds at those base images
#   engine.sh stop      stop the engine that `start` started; its data stays for the next start
#
# For `make compose-test` on Debian, as root. Everything lives under $ENGINE_DIR (a folder in the cache directory unless
# set). The base images are made from packages: debian:trixie-slim by debootstrap, rust:1.95-trixie with this machine's
# toolchain. They are not those whose digests envoy/Dockerfile.* name, so builds are told of them by build arguments.
set -euo pipefail
dir=${ENGINE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/latchkey-engine}
export DOCKER_HOST=unix://$dir/docker.sock
readonly RUST_IMAGE=rust:1.95-trixie DEBIAN_IMAGE=debian:trixie-slim
readonly EXPORTS="export DOCKER_HOST=$DOCKER_HOST RUST_IMAGE=$RUST_IMAGE DEBIAN_IMAGE=$DEBIAN_IMAGE"
mirror() { awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null; }

install_engine() {
    if ! command -v dockerd >/dev/null || ! command -v debootstrap >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables debootstrap >"$dir/apt.log" 2>&1 ||
            { tail -5 "$dir/apt.log" >&2; exit 1; }
    fi
    docker compose version >/dev/null 2>&1 && return
    # Compose v2 is in trixie; a private apt root leaves this machine's own sources alone.
    local apt=$dir/apt
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,pool}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) trixie main" >"$apt/sources.list"
    local options=(-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update -qq
    (cd "$apt/pool" && rm -f ./*.deb && apt-get "${options[@]}" download -qq docker-compose)
    dpkg-deb -x "$apt"/pool/docker-compose_*.deb "$dir/compose"
    install -D "$dir/compose/usr/libexec/docker/cli-plugins/docker-compose" "$HOME/.docker/cli-plugins/docker-compose"
}

start_engine() {
    docker info >/dev/null 2>&1 && return
    setsid dockerd --data-root "$dir/data" --exec-root "$dir/exec" -H "$DOCKER_HOST" -p "$dir/docker.pid" >"$dir/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 60); do docker info >/dev/null 2>&1 && return; sleep 0.5; done
    tail -20 "$dir/dockerd.log" >&2
    exit 1
}

have() { docker image inspect "$1" >/dev/null 2>&1; }

# What lets a package client inside an image trust what this machine trusts.
trust='ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt'

base_images() {
    local root=$dir/trixie
    if ! have "$DEBIAN_IMAGE"; then
        rm -rf "$root"
        debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$(mirror)" >"$dir/debootstrap.log" 2>&1
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
        cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
        tar -C "$root" -c . | docker import - "$DEBIAN_IMAGE" >/dev/null
        rm -rf "$root"
    fi
    if ! have "$RUST_IMAGE"; then
        local context=$dir/rust
        rm -rf "$context" && mkdir -p "$context"
        cp -aL "$(rustc --print sysroot)" "$context/toolchain"
        rm -rf "$context/toolchain/share/doc"
        printf '%s\n' "FROM $DEBIAN_IMAGE" \
            'RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev make pkg-config perl python3 curl git xz-utils && rm -rf /var/lib/apt/lists/*' \
            'COPY toolchain /usr/local/rust' 'ENV PATH=/usr/local/rust/bin:$PATH' "$trust" >"$context/Dockerfile"
        docker build -q -t "$RUST_IMAGE" "$context" >/dev/null 2>"$dir/build.log" || { cat "$dir/build.log" >&2; exit 1; }
        rm -rf "$context"
    fi
}

mkdir -p "$dir"
case ${1:-} in
    start) install_engine && start_engine && base_images && echo "$EXPORTS" ;;
    env) echo "$EXPORTS" ;;
    stop) [ ! -f "$dir/docker.pid" ] || kill "$(cat "$dir/docker.pid")" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
