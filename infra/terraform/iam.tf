# Only Firestore's roles are granted on the project, and a condition limits them to the one database.

resource "google_service_account" "producer" {
  project      = var.project_id
  account_id   = "${var.name}-producer"
  display_name = "run-log producer: publishes events"
}

resource "google_service_account" "projector" {
  project      = var.project_id
  account_id   = "${var.name}-projector"
  display_name = "run-log projector: takes events, writes runs"
}

resource "google_service_account" "reader" {
  project      = var.project_id
  account_id   = "${var.name}-reader"
  display_name = "run-log reader: queries runs"
}

resource "google_pubsub_topic_iam_member" "producer" {
  project = var.project_id
  topic   = google_pubsub_topic.events.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.producer.member
}

resource "google_pubsub_subscription_iam_member" "projector" {
  count = local.is_push ? 0 : 1

  project      = var.project_id
  subscription = google_pubsub_subscription.projector.name
  role         = "roles/pubsub.subscriber"
  member       = google_service_account.projector.member
}

resource "google_pubsub_topic_iam_member" "projector_dead_letters" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.projector.member
}

resource "google_project_iam_member" "projector" {
  project = var.project_id
  role    = "roles/datastore.user"
  member  = google_service_account.projector.member

  condition {
    title      = "${var.name} database"
    expression = local.database_condition
  }
}

resource "google_project_iam_member" "reader" {
  project = var.project_id
  role    = "roles/datastore.viewer"
  member  = google_service_account.reader.member

  condition {
    title      = "${var.name} database"
    expression = local.database_condition
  }
}

# Pub/Sub itself dead-letters what was delivered too often. It publishes to that topic and acknowledges here.
resource "google_pubsub_topic_iam_member" "dead_letters_agent" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_service_agent
}

resource "google_pubsub_subscription_iam_member" "projector_agent" {
  project      = var.project_id
  subscription = google_pubsub_subscription.projector.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_service_agent
}

# For push: the account whose token Pub/Sub sends, and the permission to create the token.
resource "google_service_account" "push" {
  count = local.is_push ? 1 : 0

  project      = var.project_id
  account_id   = "${var.name}-push"
  display_name = "run-log push: as whom Pub/Sub calls the projector"
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  count = local.is_push ? 1 : 0

  project  = var.project_id
  location = google_cloud_run_v2_service.projector[0].location
  name     = google_cloud_run_v2_service.projector[0].name
  role     = "roles/run.invoker"
  member   = google_service_account.push[0].member
}

resource "google_service_account_iam_member" "push_agent" {
  count = local.is_push ? 1 : 0

  service_account_id = google_service_account.push[0].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_service_agent
}
