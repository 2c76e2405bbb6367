# What the files share. A test compares run-log's own names and numbers with its code.

data "google_project" "main" {
  project_id = var.project_id
}

locals {
  topic             = "${var.name}-events"
  subscription      = "${var.name}-projector"
  dead_letter_topic = "${var.name}-dead-letters"

  dashboard           = "${var.name}-dashboard"
  answering_dashboard = "${var.name}-answers"

  is_push     = var.projector_mode == "push"
  health_port = 8080

  pubsub_service_agent = "serviceAccount:service-${data.google_project.main.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  # Firestore's roles are granted on projects. This limits them to the database.
  database_condition = "resource.name == \"projects/${var.project_id}/databases/${var.database_name}\""

  projector_environment = merge(
    {
      GOOGLE_CLOUD_PROJECT      = var.project_id
      RUN_LOG_SUBSCRIPTION      = local.subscription
      RUN_LOG_DEAD_LETTER_TOPIC = local.dead_letter_topic
      RUN_LOG_DATABASE          = var.database_name
      RUN_LOG_ROOT_COLLECTION   = var.root_collection
      RUN_LOG_STATS_SHARDS      = tostring(var.stats_shards)
    },
    var.run_retention_days == null ? {} : { RUN_LOG_RETENTION_DAYS = tostring(var.run_retention_days) },
    local.is_push ? { RUN_LOG_PUSH_AUTH = "iam" } : {},
  )

  producer_environment = {
    GOOGLE_CLOUD_PROJECT = var.project_id
    RUN_LOG_BACKEND      = "pubsub"
    RUN_LOG_TOPIC        = local.topic
  }

  # One for whoever may look. A second one answers paused runs, and so publishes, which the first cannot.
  dashboards = merge(
    var.dashboard_enabled ? { (local.dashboard) = { answers = false, members = var.dashboard_members } } : {},
    var.dashboard_enabled && length(var.dashboard_answering_members) > 0 ? {
      (local.answering_dashboard) = { answers = true, members = var.dashboard_answering_members }
    } : {},
  )

  dashboard_environment = { for name, one in local.dashboards : name => merge(local.reader_environment, {
    RUN_LOG_BACKEND             = one.answers ? "pubsub" : "firestore"
    RUN_LOG_TOPIC               = local.topic
    RUN_LOG_DASHBOARD_AUTH      = "iap"
    RUN_LOG_DASHBOARD_AUDIENCE  = "/projects/${data.google_project.main.number}/locations/${var.region}/services/${name}"
    RUN_LOG_DASHBOARD_READ_ONLY = tostring(!one.answers)
  }) }

  reader_environment = {
    GOOGLE_CLOUD_PROJECT    = var.project_id
    RUN_LOG_BACKEND         = "firestore"
    RUN_LOG_DATABASE        = var.database_name
    RUN_LOG_ROOT_COLLECTION = var.root_collection
  }
}
