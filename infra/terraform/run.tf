# One image, two entry points: a worker pool that pulls, or a service that is pushed to.

resource "google_cloud_run_v2_worker_pool" "projector" {
  count = local.is_push ? 0 : 1

  project             = var.project_id
  location            = var.region
  name                = "${var.name}-projector"
  labels              = var.labels
  deletion_protection = false # It holds no data, and the mode may change.

  # A worker pool does not scale by itself.
  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = var.projector_instances
  }

  template {
    service_account = google_service_account.projector.email

    containers {
      image = var.image
      args  = ["projector", "pull", "--health-host", "0.0.0.0", "--health-port", tostring(local.health_port)]

      resources {
        limits = var.projector_limits
      }

      dynamic "env" {
        for_each = local.projector_environment

        content {
          name  = env.key
          value = env.value
        }
      }

      # /live succeeds during an outage of the store, because a restart would not help.
      startup_probe {
        period_seconds    = 5
        failure_threshold = 12

        http_get {
          path = "/live"
          port = local.health_port
        }
      }

      liveness_probe {
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/live"
          port = local.health_port
        }
      }
    }
  }

  # Without these grants it would end at once.
  depends_on = [
    google_firestore_field.unindexed,
    google_project_iam_member.projector,
    google_pubsub_subscription_iam_member.projector,
    google_pubsub_topic_iam_member.projector_dead_letters,
  ]
}

resource "google_cloud_run_v2_service" "projector" {
  count = local.is_push ? 1 : 0

  project             = var.project_id
  location            = var.region
  name                = "${var.name}-projector"
  labels              = var.labels
  deletion_protection = false # It holds no data, and the mode may change.

  # Pub/Sub of the same project counts as internal. Anybody else needs run.invoker.
  ingress = "INGRESS_TRAFFIC_INTERNAL_ONLY"

  template {
    service_account = google_service_account.projector.email

    # The time that Pub/Sub waits for an answer, and enough concurrent requests to fill a large commit.
    timeout                          = "60s"
    max_instance_request_concurrency = 250

    scaling {
      max_instance_count = var.projector_instances
    }

    containers {
      image = var.image
      args  = ["projector", "push"]

      ports {
        container_port = local.health_port
      }

      resources {
        limits   = var.projector_limits
        cpu_idle = true
      }

      dynamic "env" {
        for_each = local.projector_environment

        content {
          name  = env.key
          value = env.value
        }
      }

      startup_probe {
        period_seconds    = 5
        failure_threshold = 12

        http_get {
          path = "/live"
          port = local.health_port
        }
      }

      liveness_probe {
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/live"
          port = local.health_port
        }
      }
    }
  }

  depends_on = [
    google_firestore_field.unindexed,
    google_project_iam_member.projector,
    google_pubsub_topic_iam_member.projector_dead_letters,
  ]
}
