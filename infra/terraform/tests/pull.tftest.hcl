# A projector that pulls, which is the default.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project_id        = "a-project"
  region            = "europe-west1"
  database_location = "eur3"
  image             = "europe-west1-docker.pkg.dev/a-project/images/run-log:0.1.0"
}

run "what_is_made_by_default" {
  assert {
    condition     = length(google_cloud_run_v2_worker_pool.projector) == 1 && length(google_cloud_run_v2_service.projector) == 0
    error_message = "There is a worker pool, and no service."
  }

  assert {
    condition     = length(google_pubsub_subscription.projector.push_config) == 0
    error_message = "Nothing is pushed."
  }

  assert {
    condition     = length(google_pubsub_subscription.projector.retry_policy) == 0 && google_pubsub_subscription.projector.ack_deadline_seconds == 20
    error_message = "What a killed projector had in hand comes again soon."
  }

  assert {
    condition     = length(google_service_account.push) == 0
    error_message = "Nobody needs an account to push as."
  }

  assert {
    condition = { for variable in google_cloud_run_v2_worker_pool.projector[0].template[0].containers[0].env : variable.name => variable.value } == {
      GOOGLE_CLOUD_PROJECT      = "a-project"
      RUN_LOG_DATABASE          = "run-log"
      RUN_LOG_DEAD_LETTER_TOPIC = "run-log-dead-letters"
      RUN_LOG_ROOT_COLLECTION   = "autopilot_runs"
      RUN_LOG_STATS_SHARDS      = "1"
      RUN_LOG_SUBSCRIPTION      = "run-log-projector"
    }
    error_message = "The projector is told where to pull and where to write."
  }
  assert {
    condition     = google_pubsub_topic_iam_member.producer.topic == "run-log-events" && google_pubsub_topic_iam_member.producer.member == google_service_account.producer.member
    error_message = "The producer may publish to the one topic."
  }

  assert {
    condition     = google_pubsub_subscription_iam_member.projector[0].subscription == "run-log-projector" && google_pubsub_subscription_iam_member.projector[0].member == google_service_account.projector.member
    error_message = "The projector may take events from the one subscription."
  }

  assert {
    condition     = google_pubsub_topic_iam_member.projector_dead_letters.topic == "run-log-dead-letters" && google_pubsub_topic_iam_member.projector_dead_letters.member == google_service_account.projector.member
    error_message = "The projector may publish dead letters."
  }

  assert {
    condition = alltrue([
      for granted in [google_project_iam_member.projector, google_project_iam_member.reader] :
      granted.condition[0].expression == "resource.name == \"projects/a-project/databases/run-log\""
    ])
    error_message = "Firestore's roles reach the one database and no other."
  }

  assert {
    condition = alltrue([
      for granted in [google_pubsub_topic_iam_member.dead_letters_agent, google_pubsub_subscription_iam_member.projector_agent] :
      granted.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    ])
    error_message = "Pub/Sub itself may dead-letter."
  }

  assert {
    condition     = google_project_iam_member.archive_agent[0].condition[0].expression == "resource.name == \"projects/_/buckets/a-project-run-log-archive\" || resource.name.startsWith(\"projects/_/buckets/a-project-run-log-archive/\")"
    error_message = "Pub/Sub itself may write to the archive's bucket and to no other."
  }
  assert {
    condition     = google_pubsub_subscription.archive[0].cloud_storage_config[0].avro_config[0].write_metadata
    error_message = "Pub/Sub's metadata of a message is archived."
  }

  assert {
    condition     = tonumber(trimsuffix(google_pubsub_subscription.archive[0].cloud_storage_config[0].max_duration, "s")) < google_pubsub_subscription.archive[0].ack_deadline_seconds
    error_message = "A file is written before its messages are due."
  }

  assert {
    condition     = google_storage_bucket.archive[0].versioning[0].enabled && length(google_storage_bucket.archive[0].retention_policy) == 0
    error_message = "Replaced files are kept as versions."
  }

  assert {
    condition     = length(distinct([for tile in jsondecode(google_monitoring_dashboard.main.dashboard_json).mosaicLayout.tiles : "${tile.xPos} ${tile.yPos}"])) == 8
    error_message = "No chart of the dashboard covers another."
  }
}

run "runs_that_expire_and_files_that_are_locked" {
  variables {
    archive_locked_days = 365
    run_retention_days  = 90
  }

  assert {
    condition     = output.projector_environment.RUN_LOG_RETENTION_DAYS == "90"
    error_message = "The projector is told after how many days runs expire."
  }

  assert {
    condition     = google_storage_bucket.archive[0].retention_policy[0].retention_period == "31536000" && !google_storage_bucket.archive[0].versioning[0].enabled
    error_message = "Files are locked for a year."
  }
}

run "no_archive" {
  variables {
    archive_enabled = false
  }

  assert {
    condition     = length(google_storage_bucket.archive) + length(google_pubsub_subscription.archive) + length(google_monitoring_alert_policy.archive) + length(google_project_iam_member.archive_agent) == 0
    error_message = "Nothing of the archive is created."
  }

  assert {
    condition     = output.archive_bucket == null
    error_message = "No bucket is named."
  }
}

run "the_example" {
  variables {
    alert_email = "oncall@example.com"
  }

  module {
    source = "./examples/basic"
  }

  assert {
    condition     = output.producer_environment == { GOOGLE_CLOUD_PROJECT = "a-project", RUN_LOG_BACKEND = "pubsub", RUN_LOG_TOPIC = "run-log-events" }
    error_message = "The example creates a run log and says how to emit to it."
  }
}
