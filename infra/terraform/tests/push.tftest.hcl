# A projector that is pushed to.

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
  projector_mode    = "push"
}

run "a_projector_that_is_pushed_to" {
  assert {
    condition     = length(google_cloud_run_v2_worker_pool.projector) == 0 && length(google_cloud_run_v2_service.projector) == 1
    error_message = "There is a service, and no worker pool."
  }

  assert {
    condition     = google_pubsub_subscription.projector.push_config[0].push_endpoint == google_cloud_run_v2_service.projector[0].uri
    error_message = "Events are pushed to the service."
  }

  assert {
    condition     = google_pubsub_subscription.projector.retry_policy[0].minimum_backoff == "10s" && google_pubsub_subscription.projector.ack_deadline_seconds == 60
    error_message = "Pub/Sub backs off, and waits for as long as a push may take."
  }

  assert {
    condition     = google_pubsub_subscription.projector.push_config[0].oidc_token[0].service_account_email == google_service_account.push[0].email
    error_message = "Pub/Sub calls with the account that may call."
  }

  assert {
    condition     = length(google_pubsub_subscription_iam_member.projector) == 0
    error_message = "The projector does not pull."
  }

  assert {
    condition     = output.projector_environment.RUN_LOG_PUSH_AUTH == "iam"
    error_message = "Cloud Run verifies who pushes."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.push[0].role == "roles/run.invoker" && google_cloud_run_v2_service_iam_member.push[0].member == google_service_account.push[0].member
    error_message = "Only the one account may call the service."
  }

  assert {
    condition     = google_service_account_iam_member.push_agent[0].service_account_id == google_service_account.push[0].name && google_service_account_iam_member.push_agent[0].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "Pub/Sub may make tokens of that account."
  }

  assert {
    condition     = length(google_monitoring_alert_policy.push_errors) == 1
    error_message = "An alert reports pushes that fail."
  }
}
