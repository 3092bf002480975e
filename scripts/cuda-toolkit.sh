#!/usr/bin/env bash
# NVIDIA's compiler (nvcc 13.0) in a folder of its own, from its Python packages: no CUDA installation, no card, no root.
#
#   scripts/cuda-toolkit.sh DIR      then: source DIR/env.sh && cargo build --release --features cuda
#
# The program opens the driver and cuBLAS when it runs, so nothing of them is needed to build it. nvcc stays at 13.0: the
# PTX of a newer one is refused by driver 580.
set -euo pipefail
dir=$(mkdir -p "${1:?usage: cuda-toolkit.sh DIR}" && cd "$1" && pwd)
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$dir/packages" \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
chmod -R u+x "$dir/packages/nvidia/cu13/bin" "$dir/packages/nvidia/cu13/nvvm/bin"
for part in bin include nvvm lib; do ln -sfn "packages/nvidia/cu13/$part" "$dir/$part"; done
cat > "$dir/env.sh" <<ENV
export CUDA_HOME="$dir" CUDA_PATH="$dir" PATH="$dir/bin:\$PATH"
ENV
"$dir/bin/nvcc" --version | tail -n 2
echo "source $dir/env.sh"
