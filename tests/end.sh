# For the programs beside this one, which start processes.

# Ends one process by its pid: politely, and after five seconds for good.
end() {
  local pid=$1 waited
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || true
  for ((waited = 0; waited < 50; waited++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}
