#!/usr/bin/env bash
# Draws docs/images/forecast.png from the page of a demo: one chart of one metric. Needs chromium.
#   graphtide demo --years 3.7 && docs/images/forecast.sh graphtide-demo/index.html
set -euo pipefail
page="$1" chart=held-out metric=active_nodes
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
style="body { padding: 0; max-width: none } html { background: #fff } .card { border: 0; margin: 0 }
header, footer, .choose, main > section:not(:has(#chart-$chart)) { display: none !important }"
click="setTimeout(() => document.querySelector('input[value=$metric]').click(), 1500)"
{ cat "$page"; printf '<style>%s</style><script>%s</script>' "$style" "$click"; } > "$work/one.html"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --user-data-dir="$work/profile" --force-device-scale-factor=2 \
  --window-size=800,480 --virtual-time-budget=8000 --screenshot="$here/forecast.png" "file://$work/one.html"
