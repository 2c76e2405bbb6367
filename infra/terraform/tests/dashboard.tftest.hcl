# The services that show the runs.

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

run "nothing_is_shown_unless_it_is_asked_for" {
  variables {
    dashboard_members           = ["group:team@example.com"]
    dashboard_answering_members = ["group:leads@example.com"]
  }

  assert {
    condition     = length(google_cloud_run_v2_service.dashboard) == 0 && length(google_service_account.answerer) == 0 && length(google_iap_web_cloud_run_service_iam_member.dashboard) == 0
    error_message = "There is no service, no account and no grant."
  }
}

run "a_dashboard_that_shows" {
  variables {
    dashboard_enabled = true
    dashboard_members = ["group:team@example.com", "user:ann@example.com"]
  }

  assert {
    condition     = keys(google_cloud_run_v2_service.dashboard) == ["run-log-dashboard"] && google_cloud_run_v2_service.dashboard["run-log-dashboard"].iap_enabled
    error_message = "One service, behind Identity-Aware Proxy."
  }

  assert {
    condition     = google_cloud_run_v2_service.dashboard["run-log-dashboard"].template[0].service_account == google_service_account.reader.email && length(google_service_account.answerer) == 0
    error_message = "It runs as the reader, which can write nothing."
  }

  assert {
    condition = local.dashboard_environment["run-log-dashboard"] == {
      GOOGLE_CLOUD_PROJECT        = "a-project"
      RUN_LOG_BACKEND             = "firestore"
      RUN_LOG_DATABASE            = "run-log"
      RUN_LOG_ROOT_COLLECTION     = "autopilot_runs"
      RUN_LOG_TOPIC               = "run-log-events"
      RUN_LOG_DASHBOARD_AUTH      = "iap"
      RUN_LOG_DASHBOARD_AUDIENCE  = "/projects/123456789012/locations/europe-west1/services/run-log-dashboard"
      RUN_LOG_DASHBOARD_READ_ONLY = "true"
    }
    error_message = "It verifies IAP's tokens for itself, and is read-only."
  }

  assert {
    condition     = google_cloud_run_v2_service_iam_member.dashboard["run-log-dashboard"].member == "serviceAccount:service-123456789012@gcp-sa-iap.iam.gserviceaccount.com"
    error_message = "Cloud Run lets in IAP and nobody else."
  }

  assert {
    condition     = toset([for one in google_iap_web_cloud_run_service_iam_member.dashboard : one.member]) == toset(["group:team@example.com", "user:ann@example.com"])
    error_message = "IAP lets in the members."
  }
}

run "a_second_one_that_answers" {
  variables {
    dashboard_enabled           = true
    dashboard_members           = ["group:team@example.com"]
    dashboard_answering_members = ["group:leads@example.com"]
  }

  assert {
    condition     = google_cloud_run_v2_service.dashboard["run-log-answers"].template[0].service_account == google_service_account.answerer[0].email && google_cloud_run_v2_service.dashboard["run-log-dashboard"].template[0].service_account == google_service_account.reader.email
    error_message = "Only the service that answers runs as the account that publishes."
  }

  assert {
    condition     = local.dashboard_environment["run-log-answers"].RUN_LOG_BACKEND == "pubsub" && local.dashboard_environment["run-log-answers"].RUN_LOG_DASHBOARD_READ_ONLY == "false" && local.dashboard_environment["run-log-dashboard"].RUN_LOG_DASHBOARD_READ_ONLY == "true"
    error_message = "Only that one answers, by publishing."
  }

  assert {
    condition     = endswith(local.dashboard_environment["run-log-answers"].RUN_LOG_DASHBOARD_AUDIENCE, "/services/run-log-answers")
    error_message = "A token for one is none for the other."
  }

  assert {
    condition     = [for one in google_iap_web_cloud_run_service_iam_member.dashboard : one.member if one.cloud_run_service_name == google_cloud_run_v2_service.dashboard["run-log-answers"].name] == ["group:leads@example.com"]
    error_message = "Only its members get into it."
  }
}

run "not_everybody" {
  command = plan

  variables {
    dashboard_enabled           = true
    dashboard_members           = ["allUsers"]
    dashboard_answering_members = ["allAuthenticatedUsers"]
  }

  expect_failures = [var.dashboard_members, var.dashboard_answering_members]
}
