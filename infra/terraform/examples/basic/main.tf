# A run log of its own in an existing project: terraform apply -var project_id=... -var image=...

terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 8.0, < 9.0"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region
}

variable "project_id" {
  description = "An existing project with billing."
  type        = string
}

variable "region" {
  description = "Where the projector runs."
  type        = string
  default     = "europe-west1"
}

variable "image" {
  description = "The projector's image, as infra/Dockerfile builds it."
  type        = string
}

variable "alert_email" {
  description = "Where alerts go."
  type        = string
}

resource "google_project_service" "main" {
  for_each = toset([
    "bigquery.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "iap.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "storage.googleapis.com",
  ])

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false
}

resource "google_monitoring_notification_channel" "email" {
  project      = var.project_id
  display_name = "run-log"
  type         = "email"
  labels       = { email_address = var.alert_email }
}

module "run_log" {
  source = "../../"

  project_id            = var.project_id
  region                = var.region
  database_location     = "eur3"
  image                 = var.image
  notification_channels = [google_monitoring_notification_channel.email.id]

  depends_on = [google_project_service.main]
}

output "producer_environment" {
  description = "The environment variables for services that run workflows."
  value       = module.run_log.producer_environment
}

output "reader_environment" {
  description = "The environment variables for services that query runs."
  value       = module.run_log.reader_environment
}

output "dashboard_urls" {
  description = "Where the services that show the runs are, by name."
  value       = module.run_log.dashboard_urls
}
