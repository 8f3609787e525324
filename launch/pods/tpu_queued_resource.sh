#!/bin/bash
# The whole job on a TPU pod that is asked for as a queued resource, from a machine with gcloud:
#
#   NAME=o1p ZONE=us-east5-a NFS=10.0.0.2:/runs bash launch/pods/tpu_queued_resource.sh
#
# The same command runs on every host; on a TPU VM the processes find each other. NFS is a file system that all hosts
# can write (Filestore). A preempted pod is asked for again, and the job goes on from the last checkpoint.
set -euo pipefail
: "${NAME:?a name for the pod}" "${ZONE:?its zone}" "${NFS:?HOST:/SHARE for the run folder}"
type=${TYPE:-v5p-128}
version=${VERSION:-v2-alpha-tpuv5}
source=${SOURCE:-https://github.com/YOUR/o1p_jax}

read -r -d '' job << 'REMOTE' || true
set -euo pipefail
# Where only the connection was lost, the job goes on without it: wait for its end.
exec 9> /tmp/o1p.lock
flock 9
sudo mkdir -p /runs && { mountpoint -q /runs || sudo mount -t nfs NFS_SHARE /runs; }
[ -d o1p_jax ] || git clone -q SOURCE_URL o1p_jax
cd o1p_jax
# The image's Python may be too old.
python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || "$HOME/.local/bin/uv" venv --quiet --seed --python 3.11 .venv
.venv/bin/pip install --quiet -c constraints.txt -e '.[tpu]'
# vLLM has its own versions of most packages: of this project's, its environment gets what sampling needs.
[ -x "$HOME/venv-vllm/bin/python" ] || "$HOME/.local/bin/uv" venv --quiet --seed --python 3.12 "$HOME/venv-vllm"
"$HOME/venv-vllm/bin/pip" install --quiet vllm-tpu jaxtyping pyarrow rich
"$HOME/venv-vllm/bin/pip" install --quiet --no-deps -e .
# It runs on the four chips of a v5p host alone, not on the whole slice.
cat > vllm_python << 'VLLM'
#!/bin/bash
export TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 TPU_VISIBLE_CHIPS=0,1,2,3
exec "$HOME/venv-vllm/bin/python" "$@"
VLLM
chmod +x vllm_python
.venv/bin/python launch/train.py --config=configs/qwq_32b.py --run=/runs/qwq_32b \
  --sampling.vllm.python=./vllm_python --sampling.vllm.tensor_parallel=4
REMOTE
job=${job//NFS_SHARE/$NFS}
job=${job//SOURCE_URL/$source}

state() {
  gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format='value(state.state)' 2> /dev/null ||
    echo ABSENT
}

failures=0
while true; do
  case $(state) in
    ABSENT)
      gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
        --accelerator-type="$type" --runtime-version="$version" --spot --async || true
      ;;
    ACTIVE)
      code=0
      gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$job" || code=$?
      if [ "$code" -eq 0 ]; then
        gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
        exit 0
      fi
      # Preempted, a host or the connection lost; or something that will not get better by itself.
      failures=$((failures + 1))
      if [ "$failures" -eq 20 ]; then
        exit "$code"
      fi
      ;;
    SUSPENDED | FAILED)
      gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
      ;;
  esac
  sleep 30
done
