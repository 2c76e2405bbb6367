output "producer_environment" {
  description = "The environment variables for services that run workflows."
  value       = local.producer_environment
}

output "reader_environment" {
  description = "The environment variables for services that query runs."
  value       = local.reader_environment
}

output "projector_environment" {
  description = "The environment variables of the projector."
  value       = local.projector_environment
}

output "producer_service_account" {
  description = "The e-mail address of the account that may publish events."
  value       = google_service_account.producer.email
}

output "projector_service_account" {
  description = "The e-mail address of the account that the projector runs as."
  value       = google_service_account.projector.email
}

output "reader_service_account" {
  description = "The e-mail address of the account that may query runs."
  value       = google_service_account.reader.email
}

output "topic" {
  description = "The full name of the topic that events are published to."
  value       = google_pubsub_topic.events.id
}

output "dead_letter_subscription" {
  description = "The full name of the subscription that keeps dead letters."
  value       = google_pubsub_subscription.dead_letters.id
}

output "database" {
  description = "The name of the Firestore database."
  value       = google_firestore_database.main.name
}

output "archive_bucket" {
  description = "The name of the bucket that holds every event; null without an archive."
  value       = one(google_storage_bucket.archive[*].name)
}

output "warehouse_dataset" {
  description = "The BigQuery dataset of the views, as queries name it; null without a warehouse."
  value       = one(google_bigquery_dataset.warehouse[*].dataset_id) == null ? null : local.warehouse_dataset
}

output "dashboard_urls" {
  description = "Where the services that show the runs are, by name; empty without any."
  value       = { for name, one in google_cloud_run_v2_service.dashboard : name => one.uri }
}

output "dashboard" {
  description = "The id of the dashboard in Cloud Monitoring."
  value       = google_monitoring_dashboard.main.id
}
