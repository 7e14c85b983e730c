#!/usr/bin/env bash
# Deploys detent's chart export to Google Cloud: docs/deploy.md says what each step is for.
# Every step may be repeated: what is there already stays, what changed is updated. Nothing is deleted.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: deploy/deploy.sh [--dry-run] [--settings FILE] [STEP...]

  --dry-run         print every gcloud command, and run none
  --settings FILE   where the settings are (default: deploy/settings.sh; see deploy/settings.example.sh)

Steps, in this order when none is named:
  apis       enable what is used
  accounts   the service accounts: build, runtime, trigger, sweep
  database   the Firestore database
  indexes    its indexes, from deploy/firestore.indexes.json
  bucket     the bucket, and how long its blobs are kept
  secret     the accounts of Chart-IMG
  roles      what each service account may do
  event      the function that events of Firestore start
  sweep      the function that goes on with what was left
  schedule   the job that calls it
USAGE
}

steps=(apis accounts database indexes bucket secret roles event sweep schedule)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
dry_run=no
settings=$here/settings.sh

fail() {
  printf 'deploy: %s\n' "$*" >&2
  exit 2
}

# -- How commands are run ---------------------------------------------------------------------------------------------

plain='^[A-Za-z0-9_./:=@,+-]+$'
quote="'\\''"
there='already exists|ALREADY_EXISTS|already own it'

# Print a command so that it can be pasted.
show() {
  local word line=
  for word in "$@"; do
    if [[ $word =~ $plain ]]; then line+="$word "; else line+="'${word//\'/$quote}' "; fi
  done
  printf '%s\n' "${line% }"
}

run() {
  show "$@"
  [[ $dry_run == yes ]] || "$@"
}

# Make something; that it is there already is success.
make() {
  local said
  show "$@"
  [[ $dry_run == yes ]] && return
  if said=$("$@" 2>&1); then
    [[ -z $said ]] || printf '%s\n' "$said"
  elif [[ $said =~ $there ]]; then
    printf '# it is there already\n'
  else
    printf '%s\n' "$said" >&2
    return 1
  fi
}

# Run once more after a while: a role or an API that was just granted takes its time to be known everywhere, and
# Cloud Functions then says "unable to queue the operation" or that a service agent lacks a permission.
run_twice() {
  run "$@" && return
  printf '# once more in %s s\n' "$RETRY_WAIT_S" >&2
  sleep "$RETRY_WAIT_S"
  run "$@"
}

# -- Settings ---------------------------------------------------------------------------------------------------------

read_settings() {
  if [[ -e $settings ]]; then
    # shellcheck source=/dev/null
    source "$settings"
  elif [[ $settings != "$here/settings.sh" ]]; then
    fail "there is no $settings."
  fi
  local name
  for name in PROJECT LOCATION BUCKET; do
    [[ -n ${!name:-} ]] || fail "$name is not set. Copy deploy/settings.example.sh to deploy/settings.sh and edit it."
  done
  : "${DATABASE:=(default)}" "${SECRET:=chart-img-accounts}" "${ACCOUNTS_FILE:=}" "${ENV_FILE:=$here/env.yaml}"
  : "${INDEXES_FILE:=$here/firestore.indexes.json}"
  : "${EVENT_FUNCTION:=detent-chart-export}" "${SWEEP_FUNCTION:=detent-sweep}" "${SWEEP_SCHEDULE:=*/2 * * * *}"
  : "${RUNTIME:=python313}" "${MEMORY:=512Mi}" "${MAX_INSTANCES:=10}" "${RETRY_WAIT_S:=20}"
  # Eventarc knows no multi-regions: it serves each from one region, and the functions must be there too.
  case $LOCATION in
    nam5) REGION=us-central1 ;;
    eur3) REGION=europe-west4 ;;
    *) REGION=$LOCATION ;;
  esac
  email=$PROJECT.iam.gserviceaccount.com
}

# The functions' variables name the same places as these settings: a database in one and another in the other is the
# mistake that shows last.
check_env_file() {
  [[ -e $ENV_FILE ]] || fail "there is no $ENV_FILE. Copy deploy/env.example.yaml to it and edit it."
  local line
  for line in "firestore://$PROJECT/$DATABASE" "$BUCKET"; do
    grep -qF -- "$line" "$ENV_FILE" || fail "$ENV_FILE does not name $line, which the settings do."
  done
}

# -- Steps ------------------------------------------------------------------------------------------------------------

step_apis() {
  run gcloud services enable artifactregistry.googleapis.com cloudbuild.googleapis.com cloudfunctions.googleapis.com \
    cloudscheduler.googleapis.com eventarc.googleapis.com firestore.googleapis.com pubsub.googleapis.com \
    run.googleapis.com secretmanager.googleapis.com storage.googleapis.com --project="$PROJECT"
}

step_accounts() {
  make gcloud iam service-accounts create detent-build --display-name="detent: builds the functions" --project="$PROJECT"
  make gcloud iam service-accounts create detent-runtime --display-name="detent: the functions" --project="$PROJECT"
  make gcloud iam service-accounts create detent-trigger --display-name="detent: delivers events" --project="$PROJECT"
  make gcloud iam service-accounts create detent-sweep --display-name="detent: calls the sweep" --project="$PROJECT"
}

step_database() {
  make gcloud firestore databases create --database="$DATABASE" --location="$LOCATION" --type=firestore-native \
    --delete-protection --project="$PROJECT"
}

step_indexes() {
  local line words
  [[ -e $INDEXES_FILE ]] || fail "there is no $INDEXES_FILE."
  # One line for each index and each field that has none, its words parted by tabs.
  while IFS= read -r line; do
    IFS=$'\t' read -r -a words <<<"$line"
    make gcloud firestore indexes "${words[@]}" --database="$DATABASE" --async --project="$PROJECT"
  done < <(python3 "$here/indexes.py" "$INDEXES_FILE")
}

step_bucket() {
  make gcloud storage buckets create "gs://$BUCKET" --location="$REGION" --uniform-bucket-level-access \
    --project="$PROJECT"
  run gcloud storage buckets update "gs://$BUCKET" --lifecycle-file="$here/lifecycle.json" --project="$PROJECT"
}

step_secret() {
  make gcloud secrets create "$SECRET" --replication-policy=automatic --project="$PROJECT"
  if [[ -n $ACCOUNTS_FILE ]]; then
    run gcloud secrets versions add "$SECRET" --data-file="$ACCOUNTS_FILE" --project="$PROJECT"
  else
    printf '# ACCOUNTS_FILE is not set: the secret keeps the versions that it has\n'
  fi
}

# A role on the project. Without a condition: gcloud would ask for one where another binding has one.
grant() {
  run gcloud projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$1@$email" --role="$2" \
    --condition=None --quiet
}

step_roles() {
  grant detent-build roles/cloudbuild.builds.builder
  grant detent-runtime roles/datastore.user
  grant detent-trigger roles/eventarc.eventReceiver
  run gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:detent-runtime@$email" \
    --role=roles/storage.objectUser --project="$PROJECT"
  run gcloud secrets add-iam-policy-binding "$SECRET" --member="serviceAccount:detent-runtime@$email" \
    --role=roles/secretmanager.secretAccessor --project="$PROJECT"
}

# A function: its name, its entry point, then what starts it. One request at a time: a run's work fills an instance.
deploy_function() {
  local name=$1 entry_point=$2
  shift 2
  run_twice gcloud functions deploy "$name" --gen2 --entry-point="$entry_point" "$@" --region="$REGION" \
    --runtime="$RUNTIME" --source="$root" --service-account="detent-runtime@$email" \
    --build-service-account="projects/$PROJECT/serviceAccounts/detent-build@$email" \
    --env-vars-file="$ENV_FILE" --set-secrets="CHART_IMG_ACCOUNTS_JSON=$SECRET:latest" \
    --timeout=540s --memory="$MEMORY" --cpu=1 --concurrency=1 --max-instances="$MAX_INSTANCES" \
    --no-allow-unauthenticated --project="$PROJECT" --quiet
}

# Who may call a function. Its service in Cloud Run has its name.
let_call() {
  run gcloud run services add-iam-policy-binding "$1" --member="serviceAccount:$2@$email" --role=roles/run.invoker \
    --region="$REGION" --project="$PROJECT"
}

step_event() {
  check_env_file
  deploy_function "$EVENT_FUNCTION" chart_export_event \
    --trigger-event-filters=type=google.cloud.firestore.document.v1.written \
    --trigger-event-filters="database=$DATABASE" --trigger-event-filters="namespace=(default)" \
    --trigger-event-filters-path-pattern="document=flow_runs/{runId}" \
    --trigger-location="$REGION" --trigger-service-account="detent-trigger@$email" --retry
  let_call "$EVENT_FUNCTION" detent-trigger
}

step_sweep() {
  check_env_file
  deploy_function "$SWEEP_FUNCTION" sweep --trigger-http
  let_call "$SWEEP_FUNCTION" detent-sweep
}

step_schedule() {
  local url=https://URL-OF-THE-SWEEP verb=create
  local job=(--location="$REGION" --project="$PROJECT")
  if [[ $dry_run == no ]]; then
    url=$(gcloud functions describe "$SWEEP_FUNCTION" --gen2 --region="$REGION" --project="$PROJECT" \
      --format='value(serviceConfig.uri)')
    [[ -n $url ]] || fail "$SWEEP_FUNCTION has no address. Deploy it first: deploy/deploy.sh sweep"
    if gcloud scheduler jobs describe "$SWEEP_FUNCTION" "${job[@]}" >/dev/null 2>&1; then verb=update; fi
  fi
  run gcloud scheduler jobs "$verb" http "$SWEEP_FUNCTION" --schedule="$SWEEP_SCHEDULE" --uri="$url" --http-method=POST \
    --oidc-service-account-email="detent-sweep@$email" --oidc-token-audience="$url" --attempt-deadline=560s "${job[@]}"
}

# -- Main -------------------------------------------------------------------------------------------------------------

main() {
  local asked=() step
  while (($#)); do
    case $1 in
      --dry-run) dry_run=yes ;;
      --settings)
        [[ -n ${2:-} ]] || fail "--settings wants a file."
        settings=$2
        shift
        ;;
      -h | --help)
        usage
        return
        ;;
      -*) fail "there is no option $1. See deploy/deploy.sh --help." ;;
      *)
        [[ " ${steps[*]} " == *" $1 "* ]] || fail "there is no step $1. Steps: ${steps[*]}."
        asked+=("$1")
        ;;
    esac
    shift
  done
  read_settings
  if ((${#asked[@]} == 0)); then asked=("${steps[@]}"); fi
  for step in "${asked[@]}"; do
    printf '\n# %s\n' "$step"
    "step_$step"
  done
}

main "$@"
