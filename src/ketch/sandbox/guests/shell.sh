# Runs pieces of shell one after another, in any POSIX shell. It tells its process first. Each piece
# comes behind a line with its length and a mark; when it has run, the mark and its status stand on
# both outputs.
printf '%d\n' $$
while IFS=' ' read -r ketch_length ketch_mark; do
  ketch_code=$(dd bs=1 count="$ketch_length" 2>/dev/null; printf x)
  ketch_code=${ketch_code%x}
  # A mistake in the language would end this shell as well.
  if sh -n -c "$ketch_code"; then
    trap : INT
    eval "$ketch_code" </dev/null
    ketch_status=$?
    trap '' INT
  else
    ketch_status=2
  fi
  printf '\0%s %d\0' "$ketch_mark" "$ketch_status"
  printf '\0%s %d\0' "$ketch_mark" "$ketch_status" >&2
done
