#!/bin/bash
# mpi_failure.sh PROGRAM HOW: runs PROGRAM HOW on three ranks; passes when mpirun ends with an error within seconds and leaves no rank.
set -u
program=$1 how=$2
mark="mpi-failure-$how-$$"
timeout --kill-after=5 20 mpirun --oversubscribe --allow-run-as-root --bind-to none -np 3 "$program" "$how" "$mark"
code=$?
# 124: the time limit was reached. 137 is mpirun's own code for a rank that got SIGKILL.
if [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || { [ "$code" -eq 137 ] && [ "$how" != kill ]; }; then
  echo "mpirun ended with $code"
  exit 1
fi
for _ in 1 2 3 4 5 6; do
  pgrep -f -- "$mark" >/dev/null || exit 0
  sleep 0.5
done
echo "ranks left over:"
pgrep -af -- "$mark"
exit 1
