# Every event, with Pub/Sub's metadata, for as long as the bucket keeps it.

locals {
  archive_bucket = coalesce(var.archive_bucket, "${var.project_id}-${var.name}-archive")
}

resource "google_storage_bucket" "archive" {
  count = var.archive_enabled ? 1 : 0

  project                     = var.project_id
  name                        = local.archive_bucket
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # A bucket that locks its files needs no versions.
  versioning {
    enabled = var.archive_locked_days == null
  }

  dynamic "retention_policy" {
    for_each = var.archive_locked_days[*]

    content {
      retention_period = tostring(retention_policy.value * 86400)
    }
  }

  lifecycle_rule {
    action {
      type          = "SetStorageClass"
      storage_class = "COLDLINE"
    }

    condition {
      age = var.archive_coldline_after_days
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
  }
}

# Exactly what a Cloud Storage subscription needs. Every predefined role permits more.
resource "google_project_iam_custom_role" "archive_writer" {
  count = var.archive_enabled ? 1 : 0

  project     = var.project_id
  role_id     = "${replace(var.name, "-", "_")}_archive_writer"
  title       = "${var.name} archive writer"
  description = "Creates files in a bucket, and reads, changes or deletes none."
  permissions = ["storage.buckets.get", "storage.objects.create"]
}

resource "google_project_iam_member" "archive_agent" {
  count = var.archive_enabled ? 1 : 0

  project = var.project_id
  role    = google_project_iam_custom_role.archive_writer[0].id
  member  = local.pubsub_service_agent

  condition {
    title      = "${var.name} archive"
    expression = "resource.name == \"projects/_/buckets/${local.archive_bucket}\" || resource.name.startsWith(\"projects/_/buckets/${local.archive_bucket}/\")"
  }
}

resource "google_pubsub_subscription" "archive" {
  count = var.archive_enabled ? 1 : 0

  project                    = var.project_id
  name                       = "${var.name}-archive"
  topic                      = google_pubsub_topic.events.id
  message_retention_duration = "2678400s"
  labels                     = var.labels

  # The messages of a file are acknowledged together, so max_duration has to be shorter than this.
  ack_deadline_seconds = 600

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  cloud_storage_config {
    bucket                   = google_storage_bucket.archive[0].name
    filename_prefix          = "events/"
    filename_datetime_format = "YYYY/MM/DD/hh_mm_ssZ"
    filename_suffix          = ".avro"
    max_duration             = "300s"
    max_bytes                = 104857600
    max_messages             = 100000

    avro_config {
      write_metadata = true
    }
  }

  # Pub/Sub checks that it may write before it creates the subscription.
  depends_on = [google_project_iam_member.archive_agent]
}
