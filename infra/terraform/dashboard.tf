# The dashboard behind Identity-Aware Proxy: Cloud Run lets in nobody but IAP, and IAP nobody but the members.

resource "google_cloud_run_v2_service" "dashboard" {
  for_each = local.dashboards

  project             = var.project_id
  location            = var.region
  name                = each.key
  labels              = var.labels
  deletion_protection = false # It holds no data.
  iap_enabled         = true

  template {
    service_account = each.value.answers ? google_service_account.answerer[0].email : google_service_account.reader.email

    # An open page has a stream of its own, which ends after ten minutes.
    timeout                          = "900s"
    max_instance_request_concurrency = 250

    scaling {
      max_instance_count = 2
    }

    containers {
      image = var.image
      args  = ["dashboard", "--host", "0.0.0.0"]

      ports {
        container_port = local.health_port
      }

      resources {
        limits   = { cpu = "1", memory = "512Mi" }
        cpu_idle = true
      }

      dynamic "env" {
        for_each = local.dashboard_environment[each.key]

        content {
          name  = env.key
          value = env.value
        }
      }

      # Without a path: a request has to say who asks.
      startup_probe {
        period_seconds    = 5
        failure_threshold = 12

        tcp_socket {
          port = local.health_port
        }
      }
    }
  }

  depends_on = [
    google_firestore_field.unindexed,
    google_project_iam_member.answerer,
    google_project_iam_member.reader,
    google_pubsub_topic_iam_member.answerer,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "dashboard" {
  for_each = local.dashboards

  project  = var.project_id
  location = google_cloud_run_v2_service.dashboard[each.key].location
  name     = google_cloud_run_v2_service.dashboard[each.key].name
  role     = "roles/run.invoker"
  member   = "serviceAccount:service-${data.google_project.main.number}@gcp-sa-iap.iam.gserviceaccount.com"
}

resource "google_iap_web_cloud_run_service_iam_member" "dashboard" {
  for_each = merge([for name, one in local.dashboards : {
    for member in one.members : "${name} ${member}" => { name = name, member = member }
  }]...)

  project                = var.project_id
  location               = var.region
  cloud_run_service_name = google_cloud_run_v2_service.dashboard[each.value.name].name
  role                   = "roles/iap.httpsResourceAccessor"
  member                 = each.value.member
}

# For the dashboard that answers: reads like a reader, and publishes.
resource "google_service_account" "answerer" {
  count = contains(keys(local.dashboards), local.answering_dashboard) ? 1 : 0

  project      = var.project_id
  account_id   = "${var.name}-answers"
  display_name = "run-log answers: queries runs, publishes answers"
}

resource "google_pubsub_topic_iam_member" "answerer" {
  count = length(google_service_account.answerer)

  project = var.project_id
  topic   = google_pubsub_topic.events.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.answerer[0].member
}

resource "google_project_iam_member" "answerer" {
  count = length(google_service_account.answerer)

  project = var.project_id
  role    = "roles/datastore.viewer"
  member  = google_service_account.answerer[0].member

  condition {
    title      = "${var.name} database"
    expression = local.database_condition
  }
}
