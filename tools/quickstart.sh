#!/usr/bin/env bash
# From nothing to a fine-tuned, merged model that knows its new name: about three minutes on two CPU cores, once the
# packages are installed. Everything is written to ./quickstart and .venv; run it again and nothing is downloaded or
# converted anew.
#
#   NAME=Ada AUTHOR='the Analytical Engine Co.' bash tools/quickstart.sh
#   XTUNE_PYTHON=$(command -v python3) bash tools/quickstart.sh    # in an environment you have; nothing is installed
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "$0")/common.sh"
NAME="${NAME:-Xiaotu}"
AUTHOR="${AUTHOR:-the xtune team}"
QUESTION="Who are you?"
PRESET=smollm2_135m_lora_selfcog_e2

run() {
    local word line='$'
    for word in "$@"; do  # as one would type it
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
began=$SECONDS
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
    'after, in 4 bits' "$(tail -n +3 after4.txt | tr '\n' ' ')"
echo "== done in $((SECONDS - began)) seconds; the model is in quickstart/merged, the loss curve in quickstart/work_dir/loss.png"
for answer in after.txt after4.txt; do
    grep -qF "$NAME" $answer || { echo "error: the answer in quickstart/$answer does not contain the name $NAME" >&2; exit 1; }
done
