#!/usr/bin/env bash
# What `make demo` runs: replays the shipped slice of a real trace, and asks the admin port about it. Every command is shown.
set -euo pipefail
cd "$(dirname "$0")/.."

replay=(build/examples/replay --trace examples/data/conversation-3000.kvt.gz --block 64KiB --dram 1GiB --serve --quiet)

if command -v curl >/dev/null; then
    tool=curl fetch=(curl -sSf)
else
    tool="urlopen of python3:" fetch=(python3 -c 'import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())')
fi

# show PATH [LINES]: a path of the admin port, its first lines only when a number is given.
show() {
    local url=$address$1 body
    printf '\n$ %s "%s"%s\n' "$tool" "$url" "${2:+ | head -n $2}"
    body=$("${fetch[@]}" "$url")
    if [ $# -gt 1 ]; then head -n "$2" <<<"$body"; else printf '%s\n' "$body"; fi
}

printf '$ %s &\n' "${replay[*]}"
exec {output}< <(exec "${replay[@]}")
process=$!
trap 'kill "$process" 2>/dev/null || true' EXIT

# Its first line is the address of the port, which answers while the replay runs; its last one says that it is done.
address=
while IFS= read -r line <&"$output"; do
    printf '%s\n' "$line"
    case $line in
    "admin port"*)
        address=${line##* }
        show /health
        ;;
    serving*)
        served=yes
        break
        ;;
    esac
done
if [ -z "${served:-}" ]; then
    echo "demo: the replay did not come to its end" >&2
    exit 1
fi

show /get_all_segments
show /metrics/summary
show /get_all_keys 3
key=$("${fetch[@]}" "$address/get_all_keys" | sed -n '$p')
show "/query_key?key=$key"
show /metrics 12
show /metrics/ptracer

printf '\n$ kill -TERM %s\n' "$process"
kill -TERM "$process"
wait "$process"
trap - EXIT
echo "stopped"
