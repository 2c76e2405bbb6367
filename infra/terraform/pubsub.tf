# The same as `run-log provision` creates, with a longer retention of the topic.

resource "google_pubsub_topic" "events" {
  project                    = var.project_id
  name                       = local.topic
  message_retention_duration = "${var.topic_retention_days * 86400}s"
  labels                     = var.labels
}

resource "google_pubsub_topic" "dead_letters" {
  project = var.project_id
  name    = local.dead_letter_topic
  labels  = var.labels
}

resource "google_pubsub_subscription" "projector" {
  project                    = var.project_id
  name                       = local.subscription
  topic                      = google_pubsub_topic.events.id
  ack_deadline_seconds       = local.is_push ? 60 : 20
  message_retention_duration = "604800s"
  labels                     = var.labels

  # Never expires: by default Pub/Sub deletes an idle subscription after 31 days.
  expiration_policy {
    ttl = ""
  }

  # A policy would also hold back what a killed projector had in hand. A projector that pulls backs off by itself,
  # which a push cannot.
  dynamic "retry_policy" {
    for_each = google_cloud_run_v2_service.projector[*].uri

    content {
      minimum_backoff = "10s"
      maximum_backoff = "600s"
    }
  }

  # With fewer attempts, an outage of minutes would dead-letter the whole backlog.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 50
  }

  dynamic "push_config" {
    for_each = google_cloud_run_v2_service.projector[*].uri

    content {
      push_endpoint = push_config.value

      oidc_token {
        service_account_email = google_service_account.push[0].email
        audience              = push_config.value
      }
    }
  }

  # Without these grants, dead letters would be delivered forever, and the first pushes would be refused.
  depends_on = [
    google_cloud_run_v2_service_iam_member.push,
    google_pubsub_topic_iam_member.dead_letters_agent,
    google_service_account_iam_member.push_agent,
  ]
}

# Pub/Sub keeps dead letters only in a subscription.
resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project_id
  name                       = local.dead_letter_topic
  topic                      = google_pubsub_topic.dead_letters.id
  ack_deadline_seconds       = 20
  message_retention_duration = "604800s"
  labels                     = var.labels

  expiration_policy {
    ttl = ""
  }
}
