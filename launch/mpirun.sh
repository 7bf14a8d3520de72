#!/usr/bin/env bash
# mpirun.sh -np N [--hostfile FILE] [--hosts A:2,B:2] [--interface eth0] [--] COMMAND...
# Runs `accrete worker ...` (or any COMMAND) as an N-rank job: on this machine, or over the hosts of a hostfile. Ranks may outnumber
# cores and may run as root. MPI options beyond these pass through after --mpi, e.g. --mpi "--mca plm_rsh_agent my-agent".
set -euo pipefail

ranks='' hosts=() interface='' extra=()
usage() { sed -n '2,4p' "$0" | sed 's/^# //' >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    -np|-n) [ $# -ge 2 ] || usage; ranks=$2; shift 2 ;;
    --hostfile) [ $# -ge 2 ] || usage; hosts=(--hostfile "$2"); shift 2 ;;
    --hosts) [ $# -ge 2 ] || usage; hosts=(--host "$2"); shift 2 ;;
    --interface) [ $# -ge 2 ] || usage; interface=$2; shift 2 ;;
    --mpi) [ $# -ge 2 ] || usage; read -r -a more <<<"$2"; extra+=("${more[@]}"); shift 2 ;;
    --) shift; break ;;
    -*) echo "mpirun.sh: error: unknown flag $1" >&2; usage ;;
    *) break ;;
  esac
done
[ -n "$ranks" ] && [ $# -gt 0 ] || usage
[[ $ranks =~ ^[1-9][0-9]*$ ]] || { echo "mpirun.sh: error: -np $ranks: must be a positive number" >&2; exit 2; }
command -v mpirun >/dev/null || { echo "mpirun.sh: error: no mpirun here (package openmpi-bin, or launch/install.sh)" >&2; exit 1; }

options=(--oversubscribe --bind-to none)
[ "$(id -u)" = 0 ] && options+=(--allow-run-as-root)
# Settings of Open MPI that the caller may override, in the environment or with --mpi.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-5}
if [ ${#hosts[@]} = 0 ]; then
  export OMPI_MCA_btl=${OMPI_MCA_btl:-vader,self}
else
  export OMPI_MCA_btl=${OMPI_MCA_btl:-tcp,vader,self}
  [ -z "$interface" ] || options+=(--mca oob_tcp_if_include "$interface" --mca btl_tcp_if_include "$interface")
fi
exec mpirun -np "$ranks" "${options[@]}" "${hosts[@]}" "${extra[@]}" "$@"
