variable "project_id" {
  description = "The Google Cloud project that everything is made in."
  type        = string
}

variable "region" {
  description = "Where the projector runs, and the archive's bucket is."
  type        = string
}

variable "image" {
  description = "The container image of the projector, best with its digest."
  type        = string
}

variable "name" {
  description = "What every name begins with. The default gives the topics and the subscription the names that run-log has as defaults."
  type        = string
  default     = "run-log"

  validation {
    # The longest account id is 30 characters, and "-projector" follows the name.
    condition     = can(regex("^[a-z][a-z0-9-]{2,18}[a-z0-9]$", var.name))
    error_message = "name takes 4 to 20 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "labels" {
  description = "Labels of whatever takes labels."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Whether Google Cloud refuses to delete the database."
  type        = bool
  default     = true
}

variable "topic_retention_days" {
  description = "How many days the topic keeps events for replay, acknowledged or not: 1 to 31."
  type        = number
  default     = 31

  validation {
    condition     = var.topic_retention_days >= 1 && var.topic_retention_days <= 31 && floor(var.topic_retention_days) == var.topic_retention_days
    error_message = "topic_retention_days is a whole number from 1 to 31, the most that Pub/Sub keeps."
  }
}

variable "database_name" {
  description = "The Firestore database. One of its own: a query over all workflows returns any collection named runs."
  type        = string
  default     = "run-log"

  validation {
    condition     = var.database_name == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database_name))
    error_message = "database_name takes 4 to 63 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "database_location" {
  description = "Where the Firestore database is, such as eur3 or europe-west1. It cannot be moved."
  type        = string
}

variable "root_collection" {
  description = "The Firestore collection that holds the projection."
  type        = string
  default     = "autopilot_runs"

  validation {
    condition     = length(var.root_collection) > 0 && !strcontains(var.root_collection, "/")
    error_message = "root_collection is a collection's id: not empty, and without a slash."
  }
}

variable "point_in_time_recovery" {
  description = "Whether Firestore keeps what documents were, for seven days."
  type        = bool
  default     = false
}

variable "stats_shards" {
  description = "Over how many documents a workflow's stats are spread when written."
  type        = number
  default     = 1

  validation {
    condition     = var.stats_shards >= 1 && var.stats_shards <= 500
    error_message = "stats_shards is a number from 1 to 500."
  }
}

variable "run_retention_days" {
  description = "How many days after its latest event a run expires that has ended; null keeps all."
  type        = number
  default     = null

  validation {
    condition     = var.run_retention_days == null ? true : var.run_retention_days > var.topic_retention_days && var.run_retention_days > 7
    error_message = "run_retention_days has to be more than topic_retention_days, and than the 7 days that dead letters are kept: a run that a replay can reach must not be gone."
  }
}

variable "projector_mode" {
  description = "pull: a worker pool that is always there. push: a service that scales to zero."
  type        = string
  default     = "pull"

  validation {
    condition     = contains(["pull", "push"], var.projector_mode)
    error_message = "projector_mode is pull or push."
  }
}

variable "projector_instances" {
  description = "pull: how many instances there are, 0 to stop projecting. push: how many there are at most."
  type        = number
  default     = 1

  validation {
    condition     = var.projector_instances >= (var.projector_mode == "push" ? 1 : 0) && floor(var.projector_instances) == var.projector_instances
    error_message = "projector_instances is a whole number: 0 or more that pull, or 1 or more that are pushed to."
  }
}

variable "projector_limits" {
  description = "CPU and memory of one instance of the projector."
  type        = object({ cpu = string, memory = string })
  default     = { cpu = "1", memory = "512Mi" }
}

variable "archive_enabled" {
  description = "Whether every event is also written to a bucket, for good."
  type        = bool
  default     = true
}

variable "archive_bucket" {
  description = "The name of that bucket; null for the project's id and the name."
  type        = string
  default     = null
}

variable "archive_locked_days" {
  description = "How many days nobody can delete or overwrite an archived file; null keeps replaced versions instead."
  type        = number
  default     = null

  validation {
    condition     = var.archive_locked_days == null ? true : var.archive_locked_days >= 1
    error_message = "archive_locked_days is 1 or more, or null."
  }
}

variable "archive_coldline_after_days" {
  description = "After how many days an archived file moves to the storage class COLDLINE."
  type        = number
  default     = 30
}

variable "notification_channels" {
  description = "The ids of the notification channels that alerts go to."
  type        = list(string)
  default     = []
}

variable "lag_alert_seconds" {
  description = "How old the oldest event that is not projected may be before an alert."
  type        = number
  default     = 300
}
