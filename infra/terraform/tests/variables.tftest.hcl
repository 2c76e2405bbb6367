# What is refused before anything is created.

mock_provider "google" {}

variables {
  project_id        = "a-project"
  region            = "europe-west1"
  database_location = "eur3"
  image             = "europe-west1-docker.pkg.dev/a-project/images/run-log:0.1.0"
}

run "values_that_nothing_takes" {
  command = plan

  variables {
    name                 = "a-name-of-21-letters-"
    projector_mode       = "poll"
    stats_shards         = 501
    root_collection      = "runs/of"
    topic_retention_days = 32
    database_name        = "Runs"
  }

  expect_failures = [
    var.name,
    var.projector_mode,
    var.stats_shards,
    var.root_collection,
    var.topic_retention_days,
    var.database_name,
  ]
}

run "values_that_do_not_go_together" {
  command = plan

  variables {
    projector_mode      = "push"
    projector_instances = 0
    run_retention_days  = 31
  }

  expect_failures = [var.projector_instances, var.run_retention_days]
}

run "runs_that_a_dead_letter_would_bring_back" {
  command = plan

  variables {
    topic_retention_days = 1
    run_retention_days   = 7
  }

  expect_failures = [var.run_retention_days]
}
