#!/usr/bin/env bash
# Set up .venv, then fine-tune SmolLM2-135M-Instruct to a new name, merge the adapter and query the model. Takes about
# three minutes on two CPU cores after installation. Prints each command with its output, and the answers before and after
# training. Writes only ./quickstart, .venv and the cache. A second run downloads and converts nothing.
#
#   bash tools/quickstart.sh
#   NAME=Ada AUTHOR='the Analytical Engine Co.' bash tools/quickstart.sh
#   XTUNE_PYTHON=$(command -v python3) bash tools/quickstart.sh    # in an existing environment; installs nothing
set -euo pipefail
# shellcheck source=tools/setup_env.sh
. "$(dirname "$0")/setup_env.sh"
NAME="${NAME:-Xiaotu}"
AUTHOR="${AUTHOR:-the xtune team}"
QUESTION="Who are you?"
PRESET=smollm2_135m_lora_selfcog_e2

run() {
    local word line='$'
    for word in "$@"; do  # quoted for a shell
        case $word in
            *[!A-Za-z0-9._/=:-]*) line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '\n%s\n' "$line"
    "$@"
}

make_venv
get_model
start=$SECONDS
rm -rf quickstart
mkdir quickstart
cd quickstart
ln -s "$MODEL_DIR" SmolLM2-135M-Instruct

run xtune chat ./SmolLM2-135M-Instruct --prompt "$QUESTION" --max-new-tokens 40 | tee before.txt
run xtune list-cfg -p selfcog
run xtune copy-cfg $PRESET . --cfg-options base_model=./SmolLM2-135M-Instruct \
    "train_dataset.map_args.name=$NAME" "train_dataset.map_args.author=$AUTHOR"
run xtune train ${PRESET}_copy.py --work-dir work_dir
run xtune convert pth_to_hf ${PRESET}_copy.py work_dir/epoch_2.pth ./adapter
run xtune convert merge ./SmolLM2-135M-Instruct ./adapter ./merged
run xtune chat ./merged --prompt "$QUESTION" --max-new-tokens 40 | tee after.txt
run xtune chat ./merged --bits 4 --prompt "$QUESTION" --max-new-tokens 40 | tee after4.txt

echo
echo "== $QUESTION"
printf '%-22s %s\n' \
    'before' "$(tail -n +3 before.txt | tr '\n' ' ')" \
    'after' "$(tail -n +3 after.txt | tr '\n' ' ')" \
    'after, 4-bit' "$(tail -n +3 after4.txt | tr '\n' ' ')"
echo "== finished in $((SECONDS - start)) seconds; merged model: quickstart/merged, loss curve: quickstart/work_dir/loss.png"
for answer in after.txt after4.txt; do
    grep -qF "$NAME" $answer || { echo "error: the answer in quickstart/$answer does not contain the name $NAME" >&2; exit 1; }
done
