#!/usr/bin/env bash
# Makes what control plane, agents and operators know each other by: a certificate
# authority, a server certificate for each process, a token for each agent, for
# administration and for viewing, and an app's key with the document that lets it in.
#
#   ./make-secrets.sh [DIRECTORY]      (default: secrets/, beside this file)
#
#   AGENTS   ids of the agents           (default: "agent-1 agent-2")
#   DOMAIN   if set, certificates also have the names control-plane.DOMAIN, agent-1.DOMAIN
#
# What is there is never overwritten: for new secrets name another directory, or remove it.
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
directory=${1:-$here/secrets}
agents=${AGENTS:-agent-1 agent-2}
domain=${DOMAIN:-}

if [ -e "$directory" ]; then
  echo "$directory is there already; remove it to make new secrets" >&2
  exit 1
fi
command -v openssl >/dev/null || { echo "openssl is missing" >&2; exit 1; }
for agent in $agents; do
  # It becomes a file name, a DNS name and the name of a token.
  [[ $agent =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] || { echo "AGENTS: '$agent' must be [a-z0-9][a-z0-9-]*" >&2; exit 1; }
done

# Made beside it and then moved, so that what is there is whole.
mkdir -p "$(dirname "$directory")"
work=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$work"' EXIT

# quietly COMMAND...: what it says is shown only if it fails.
quietly() {
  "$@" >"$work/said.log" 2>&1 || { cat "$work/said.log" >&2; return 1; }
}

# request NAME SUBJECT: a P-256 key and a request to sign it.
request() {
  printf '[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = %s\n' "$2" >"$work/request.conf"
  quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key"
  quietly openssl req -new -config "$work/request.conf" -key "$work/$1.key" -out "$work/$1.csr"
}

# sign NAME DAYS OPTION...: the certificate, with what $work/extensions.conf says.
sign() {
  local name=$1 days=$2
  shift 2
  quietly openssl x509 -req -in "$work/$name.csr" -days "$days" -set_serial "0x$(openssl rand -hex 16)" \
    -extfile "$work/extensions.conf" -out "$work/$name.crt" "$@"
}

# authority: signs itself, for ten years.
authority() {
  request ca "Trunkline authority of $(date -u +%Y-%m-%d)"
  printf '%s\n' 'basicConstraints = critical, CA:TRUE' 'keyUsage = critical, keyCertSign, cRLSign' \
    'subjectKeyIdentifier = hash' >"$work/extensions.conf"
  sign ca 3650 -signkey "$work/ca.key"
}

# server NAME: a certificate for two years, for its name on the compose network, for this
# machine, and below DOMAIN.
server() {
  local names="DNS:$1, DNS:localhost, IP:127.0.0.1, IP:::1"
  [ -z "$domain" ] || names="$names, DNS:$1.$domain"
  request "$1" "$1"
  printf '%s\n' 'basicConstraints = critical, CA:FALSE' 'keyUsage = critical, digitalSignature' \
    'extendedKeyUsage = serverAuth' "subjectAltName = $names" 'authorityKeyIdentifier = keyid' \
    >"$work/extensions.conf"
  sign "$1" 730 -CA "$work/ca.crt" -CAkey "$work/ca.key"
}

# token: 256 bits that nobody can guess.
token() {
  openssl rand -hex 32
}

authority
server control-plane
for agent in $agents; do
  server "$agent"
  # The control plane lets the holder in as this agent and as no other.
  printf '%s %s\n' "$agent" "$(token)" >"$work/$agent.token"
  cat "$work/$agent.token" >>"$work/agent.tokens"
done
printf 'admin %s\n' "$(token)" >"$work/admin.tokens"
printf 'viewer %s\n' "$(token)" >"$work/viewer.tokens"

# Apps have the key, the document only its hash.
printf 'sk-%s' "$(token)" >"$work/app.key"
hash=$(openssl dgst -sha256 -r "$work/app.key" | cut -d ' ' -f 1)
sed "s/APP_KEY_SHA256/$hash/" "$here/trunkline.yaml" >"$work/trunkline.yaml"

rm -f "$work"/*.csr "$work"/*.conf "$work"/*.log
# The programs run as another user, who must read single files that are mounted for him.
# On this machine only the owner of the directory gets at them; ca.key is mounted nowhere.
chmod 0444 "$work"/*
chmod 0400 "$work/ca.key"
mv -T "$work" "$directory"
trap - EXIT
echo "secrets are in $directory; the app's key is app.key, the operator's token admin.tokens"
