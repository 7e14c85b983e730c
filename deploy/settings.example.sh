# shellcheck shell=bash disable=SC2034  # read by deploy/deploy.sh
# Copy to deploy/settings.sh (which git ignores) and edit. What is commented out has the value that is shown.

PROJECT=my-project
BUCKET=my-project-charts       # of the pictures and manifests
LOCATION=europe-west4          # of the database; with nam5 the functions go to us-central1, with eur3 to europe-west4

# DATABASE='(default)'         # the Firestore database's id
# SECRET=chart-img-accounts    # of Secret Manager
# ACCOUNTS_FILE=accounts.json  # adds a version to the secret: [{"id": "main", "apiKey": "..."}]
# ENV_FILE=deploy/env.yaml     # variables of both functions
# EVENT_FUNCTION=detent-chart-export
# SWEEP_FUNCTION=detent-sweep
# SWEEP_SCHEDULE='*/2 * * * *' # how long a lost event or a killed instance may go unnoticed
# RUNTIME=python313
# MEMORY=512Mi
# MAX_INSTANCES=10
