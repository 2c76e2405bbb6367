# Every event as a row in BigQuery.

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

run "no_warehouse_unless_it_is_asked_for" {
  assert {
    condition     = length(google_bigquery_dataset.warehouse) == 0 && length(google_bigquery_table.messages) == 0 && length(google_pubsub_subscription.warehouse) == 0 && length(google_bigquery_table_iam_member.warehouse_agent) == 0 && length(google_monitoring_alert_policy.warehouse) == 0
    error_message = "There is no dataset, no table, no subscription, no grant and no alert."
  }

  assert {
    condition     = length(google_bigquery_table.decoded) + length(google_bigquery_table.events) + length(google_bigquery_table.runs) + length(google_bigquery_table.figures) == 0
    error_message = "There is no view."
  }

  assert {
    condition     = output.warehouse_dataset == null
    error_message = "There is nothing to query."
  }
}

run "a_warehouse" {
  variables {
    warehouse_enabled = true
  }

  assert {
    condition     = google_pubsub_subscription.warehouse[0].bigquery_config[0].table == "a-project.run_log.messages" && google_pubsub_subscription.warehouse[0].bigquery_config[0].write_metadata
    error_message = "Events go to the table, with their ids, times and attributes."
  }

  assert {
    condition     = google_pubsub_subscription.warehouse[0].bigquery_config[0].use_table_schema != true && google_pubsub_subscription.warehouse[0].bigquery_config[0].use_topic_schema != true && google_pubsub_subscription.warehouse[0].bigquery_config[0].drop_unknown_fields != true
    error_message = "Bodies are kept whole: no field is dropped."
  }

  assert {
    condition     = google_bigquery_table_iam_member.warehouse_agent[0].role == "roles/bigquery.dataEditor" && google_bigquery_table_iam_member.warehouse_agent[0].table_id == "messages" && google_bigquery_table_iam_member.warehouse_agent[0].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "Pub/Sub may write to that table, and to no other."
  }

  assert {
    condition     = one(google_bigquery_table.messages[0].time_partitioning).field == "publish_time" && one(google_bigquery_table.messages[0].time_partitioning).expiration_ms == null && google_bigquery_table.messages[0].deletion_protection
    error_message = "A partition has a day's rows, which are kept for ever."
  }

  assert {
    condition     = strcontains(one(google_bigquery_table.decoded["decoded"].view).query, "FROM `a-project.run_log.messages`") && strcontains(one(google_bigquery_table.runs["runs"].view).query, "FROM `a-project.run_log.events`")
    error_message = "Views are made of the dataset's own tables."
  }

  assert {
    condition     = setunion(keys(google_bigquery_table.decoded), keys(google_bigquery_table.events), keys(google_bigquery_table.runs), keys(google_bigquery_table.figures)) == toset([for file in fileset(path.module, "warehouse/*.sql") : trimsuffix(basename(file), ".sql")])
    error_message = "Each file is a view."
  }

  assert {
    condition     = google_bigquery_dataset.warehouse[0].location == "europe-west1" && output.warehouse_dataset == "a-project.run_log"
    error_message = "It is in the region."
  }
}

run "a_warehouse_elsewhere_and_not_for_ever" {
  variables {
    name                     = "the-runs"
    warehouse_enabled        = true
    warehouse_location       = "EU"
    warehouse_retention_days = 400
  }

  assert {
    condition     = google_bigquery_dataset.warehouse[0].location == "EU" && one(google_bigquery_table.messages[0].time_partitioning).expiration_ms == 34560000000 && output.warehouse_dataset == "a-project.the_runs"
    error_message = "Location, retention and name are those that were asked for."
  }
}

run "no_part_of_a_day" {
  command = plan

  variables {
    warehouse_enabled        = true
    warehouse_retention_days = 0.5
  }

  expect_failures = [var.warehouse_retention_days]
}
