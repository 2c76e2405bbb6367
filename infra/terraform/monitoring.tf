# Alerts and a dashboard. docs/operations.md says what each alert means and what to do.

locals {
  projector_series    = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${local.subscription}\""
  dead_letters_series = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${local.dead_letter_topic}\""
  warehouse_series    = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${var.name}-warehouse\""
  archive_series      = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${var.name}-archive\""

  projector_process = (
    local.is_push
    ? "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}-projector\""
    : "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"${var.name}-projector\""
  )

  projector_selector = "monitored_resource=\"pubsub_subscription\",subscription_id=\"${local.subscription}\""

  what_to_do = "What it means and what to do: docs/operations.md, Alerts."
}

resource "google_monitoring_alert_policy" "lag" {
  project               = var.project_id
  display_name          = "${var.name}: projection behind"
  severity              = "WARNING"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "An event has waited longer than ${var.lag_alert_seconds} s to be projected: queries are behind. ${local.what_to_do}"
  }

  conditions {
    display_name = "oldest event not projected"

    condition_threshold {
      filter          = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.lag_alert_seconds
      duration        = "300s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_MAX"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "no_progress" {
  project               = var.project_id
  display_name          = "${var.name}: no progress"
  severity              = "CRITICAL"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "Events wait and none is acknowledged: nothing is projected. ${local.what_to_do}"
  }

  conditions {
    display_name = "a backlog, and no acknowledgement for ten minutes"

    # Without any acknowledgement there may be no series, and a threshold on a missing series never fires.
    condition_prometheus_query_language {
      query               = "sum(min_over_time(pubsub_googleapis_com:subscription_num_undelivered_messages{${local.projector_selector}}[10m])) > 0 unless sum(increase(pubsub_googleapis_com:subscription_ack_message_count{${local.projector_selector}}[10m])) > 0"
      duration            = "300s"
      evaluation_interval = "60s"
    }
  }
}

resource "google_monitoring_alert_policy" "dead_letters" {
  project               = var.project_id
  display_name          = "${var.name}: dead letters"
  severity              = "ERROR"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "Messages could not be projected. They are kept for seven days. ${local.what_to_do}"
  }

  conditions {
    display_name = "messages among the dead letters"

    condition_threshold {
      filter          = "${local.dead_letters_series} AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "push_errors" {
  count = local.is_push ? 1 : 0

  project               = var.project_id
  display_name          = "${var.name}: push errors"
  severity              = "ERROR"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "More than a tenth of the pushes are refused or not answered. ${local.what_to_do}"
  }

  conditions {
    display_name = "pushes that were not acknowledged"

    condition_threshold {
      filter             = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND metric.labels.response_class!=\"ack\""
      denominator_filter = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/push_request_count\""
      comparison         = "COMPARISON_GT"
      threshold_value    = 0.1
      duration           = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }

      denominator_aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "archive" {
  count = var.archive_enabled ? 1 : 0

  project               = var.project_id
  display_name          = "${var.name}: archive behind"
  severity              = "ERROR"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "An event has waited for more than an hour to be archived. After 31 days it is lost to the archive. ${local.what_to_do}"
  }

  conditions {
    display_name = "oldest event not archived"

    condition_threshold {
      filter          = "${local.archive_series} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 3600
      duration        = "300s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_MAX"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "warehouse" {
  count = var.warehouse_enabled ? 1 : 0

  project               = var.project_id
  display_name          = "${var.name}: warehouse behind"
  severity              = "ERROR"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content = "An event has waited for more than an hour to be written to BigQuery. After 31 days it is lost to the warehouse. ${local.what_to_do}"
  }

  conditions {
    display_name = "oldest event not in the warehouse"

    condition_threshold {
      filter          = "${local.warehouse_series} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 3600
      duration        = "300s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_MAX"
      }
    }
  }
}

# The projector logs why a message became a dead letter; Pub/Sub's own metrics do not have the reason.
resource "google_logging_metric" "dead_letters" {
  project     = var.project_id
  name        = "${var.name}/dead_letters"
  description = "Messages that the projector dead-lettered, by reason."
  filter      = "${local.projector_process} AND jsonPayload.message=\"run_log_dead_lettered\""

  label_extractors = {
    reason = "EXTRACT(jsonPayload.reason)"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "reason"
      value_type  = "STRING"
      description = "The attribute run-log-reason of the dead letter."
    }
  }
}

locals {
  charts = [
    {
      title    = "Age of the oldest event not projected"
      unit     = "s"
      filter   = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_MAX"
      group_by = []
    },
    {
      title    = "Events not projected"
      unit     = "events"
      filter   = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_SUM"
      group_by = []
    },
    {
      title    = "Events published"
      unit     = "events/s"
      filter   = "resource.type=\"pubsub_topic\" AND resource.labels.topic_id=\"${local.topic}\" AND metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\""
      aligner  = "ALIGN_RATE"
      reducer  = "REDUCE_SUM"
      group_by = []
    },
    {
      title    = "Events acknowledged"
      unit     = "events/s"
      filter   = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/ack_message_count\""
      aligner  = "ALIGN_RATE"
      reducer  = "REDUCE_SUM"
      group_by = []
    },
    {
      title    = "Dead letters kept"
      unit     = "messages"
      filter   = "${local.dead_letters_series} AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_SUM"
      group_by = []
    },
    {
      title    = "Dead letters, by reason"
      unit     = "messages"
      filter   = "${local.projector_process} AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.dead_letters.name}\""
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.labels.reason"]
    },
    {
      title    = "Pushes, by response"
      unit     = "requests/s"
      filter   = "${local.projector_series} AND metric.type=\"pubsub.googleapis.com/subscription/push_request_count\""
      aligner  = "ALIGN_RATE"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.labels.response_class"]
    },
    {
      title    = "Age of the oldest event not archived"
      unit     = "s"
      filter   = "${local.archive_series} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_MAX"
      group_by = []
    },
  ]
}

resource "google_monitoring_dashboard" "main" {
  project = var.project_id

  dashboard_json = jsonencode({
    displayName = var.name
    mosaicLayout = {
      columns = 12
      tiles = [
        for place, chart in local.charts : {
          xPos   = place % 2 * 6
          yPos   = floor(place / 2) * 4
          width  = 6
          height = 4
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = chart.filter
                    aggregation = {
                      alignmentPeriod    = "60s"
                      perSeriesAligner   = chart.aligner
                      crossSeriesReducer = chart.reducer
                      groupByFields      = chart.group_by
                    }
                  }
                }
              }]
              yAxis = { label = chart.unit, scale = "LINEAR" }
            }
          }
        }
      ]
    }
  })
}
