# Every event as a row in BigQuery, and views that fold the rows as the projector does.

locals {
  warehouse = replace(var.name, "-", "_")

  # What BigQuery calls it in a query, and in a subscription.
  warehouse_dataset = "${var.project_id}.${local.warehouse}"

  # BigQuery creates a view only where those are that it is made of.
  warehouse_views = {
    decoded      = 1
    events       = 2
    left_out     = 2
    runs         = 3
    transitions  = 3
    answers      = 4
    durations    = 4
    stats        = 4
    stats_by_day = 4
    steps        = 4
  }

  warehouse_layers = { for layer in [1, 2, 3, 4] : layer => {
    for name, own in local.warehouse_views : name => templatefile("${path.module}/warehouse/${name}.sql", {
      dataset = local.warehouse_dataset
    }) if var.warehouse_enabled && own == layer
  } }
}

resource "google_bigquery_dataset" "warehouse" {
  count = var.warehouse_enabled ? 1 : 0

  project                    = var.project_id
  dataset_id                 = local.warehouse
  location                   = coalesce(var.warehouse_location, var.region)
  description                = "Runs of workflows: every event, and what follows from them."
  labels                     = var.labels
  delete_contents_on_destroy = false
}

# The columns are those that Pub/Sub writes. It writes bytes as they come, so it never refuses a message.
resource "google_bigquery_table" "messages" {
  count = var.warehouse_enabled ? 1 : 0

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.warehouse[0].dataset_id
  table_id            = "messages"
  description         = "Every message of the topic ${local.topic}, as it was published. A message may be there twice."
  labels              = var.labels
  deletion_protection = var.deletion_protection

  schema = jsonencode([
    { name = "subscription_name", type = "STRING", mode = "NULLABLE" },
    { name = "message_id", type = "STRING", mode = "NULLABLE" },
    { name = "publish_time", type = "TIMESTAMP", mode = "NULLABLE" },
    { name = "data", type = "BYTES", mode = "NULLABLE" },
    { name = "attributes", type = "JSON", mode = "NULLABLE" },
  ])

  # A day's rows are deleted together, and cost half once 90 days have passed. There is no column to cluster by:
  # Pub/Sub writes the ids within the body.
  time_partitioning {
    type          = "DAY"
    field         = "publish_time"
    expiration_ms = var.warehouse_retention_days == null ? null : var.warehouse_retention_days * 86400000
  }
}

resource "google_bigquery_table" "decoded" {
  for_each = local.warehouse_layers[1]

  project             = var.project_id
  dataset_id          = google_bigquery_table.messages[0].dataset_id
  table_id            = each.key
  labels              = var.labels
  deletion_protection = false # It holds no data, as all views.

  view {
    query          = each.value
    use_legacy_sql = false
  }
}

resource "google_bigquery_table" "events" {
  for_each = local.warehouse_layers[2]

  project             = var.project_id
  dataset_id          = google_bigquery_table.decoded["decoded"].dataset_id
  table_id            = each.key
  labels              = var.labels
  deletion_protection = false

  view {
    query          = each.value
    use_legacy_sql = false
  }
}

resource "google_bigquery_table" "runs" {
  for_each = local.warehouse_layers[3]

  project             = var.project_id
  dataset_id          = google_bigquery_table.events["events"].dataset_id
  table_id            = each.key
  labels              = var.labels
  deletion_protection = false

  view {
    query          = each.value
    use_legacy_sql = false
  }
}

resource "google_bigquery_table" "figures" {
  for_each = local.warehouse_layers[4]

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.warehouse[0].dataset_id
  table_id            = each.key
  labels              = var.labels
  deletion_protection = false

  view {
    query          = each.value
    use_legacy_sql = false
  }

  # Of runs and of transitions.
  depends_on = [google_bigquery_table.runs]
}

# On the one table: on the dataset, the role could delete the views.
resource "google_bigquery_table_iam_member" "warehouse_agent" {
  count = var.warehouse_enabled ? 1 : 0

  project    = var.project_id
  dataset_id = google_bigquery_table.messages[0].dataset_id
  table_id   = google_bigquery_table.messages[0].table_id
  role       = "roles/bigquery.dataEditor"
  member     = local.pubsub_service_agent
}

resource "google_pubsub_subscription" "warehouse" {
  count = var.warehouse_enabled ? 1 : 0

  project                    = var.project_id
  name                       = "${var.name}-warehouse"
  topic                      = google_pubsub_topic.events.id
  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"
  labels                     = var.labels

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # Without a schema the body is one column. With one, a field that the table does not have would be dropped, or hold
  # the message back.
  bigquery_config {
    table          = "${local.warehouse_dataset}.${google_bigquery_table.messages[0].table_id}"
    write_metadata = true
  }

  # Pub/Sub checks that it may write before it creates the subscription.
  depends_on = [google_bigquery_table_iam_member.warehouse_agent]
}
