variable "project_id" {
  description = "The Google Cloud project that holds everything."
  type        = string
}

variable "region" {
  description = "The region of the projector and of the archive's bucket."
  type        = string
}

variable "image" {
  description = "The container image of the projector, preferably with its digest."
  type        = string
}

variable "name" {
  description = "The prefix of every name. With the default, the topics and the subscription have run-log's default names."
  type        = string
  default     = "run-log"

  validation {
    # The longest account id is 30 characters, and "-projector" follows the name.
    condition     = can(regex("^[a-z][a-z0-9-]{2,18}[a-z0-9]$", var.name))
    error_message = "name has 4 to 20 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "labels" {
  description = "Labels for every resource that has labels."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Whether Google Cloud refuses to delete the database."
  type        = bool
  default     = true
}

variable "topic_retention_days" {
  description = "How many days the topic retains events for replay, 1 to 31."
  type        = number
  default     = 31

  validation {
    condition     = var.topic_retention_days >= 1 && var.topic_retention_days <= 31 && floor(var.topic_retention_days) == var.topic_retention_days
    error_message = "topic_retention_days is a whole number from 1 to 31, the most that Pub/Sub keeps."
  }
}

variable "database_name" {
  description = "The Firestore database. It should hold nothing else: a query over all workflows reads every collection named runs."
  type        = string
  default     = "run-log"

  validation {
    condition     = var.database_name == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database_name))
    error_message = "database_name has 4 to 63 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "database_location" {
  description = "The location of the Firestore database, such as eur3 or europe-west1. It cannot be changed later."
  type        = string
}

variable "root_collection" {
  description = "The Firestore collection that holds the projection."
  type        = string
  default     = "autopilot_runs"

  validation {
    condition     = length(var.root_collection) > 0 && !strcontains(var.root_collection, "/")
    error_message = "root_collection is the id of a collection: not empty, and without a slash."
  }
}

variable "point_in_time_recovery" {
  description = "Whether Firestore keeps old versions of documents for seven days."
  type        = bool
  default     = false
}

variable "stats_shards" {
  description = "The number of documents that a workflow's stats are spread over."
  type        = number
  default     = 1

  validation {
    condition     = var.stats_shards >= 1 && var.stats_shards <= 500
    error_message = "stats_shards is a number from 1 to 500."
  }
}

variable "run_retention_days" {
  description = "How many days after its latest event an ended run expires; null: never."
  type        = number
  default     = null

  validation {
    condition     = var.run_retention_days == null ? true : var.run_retention_days > var.topic_retention_days && var.run_retention_days > 7
    error_message = "run_retention_days has to be more than topic_retention_days and more than the 7 days that dead letters are kept, because a replay must not bring back a deleted run."
  }
}

variable "projector_mode" {
  description = "pull: a worker pool that always runs. push: a service that scales to zero."
  type        = string
  default     = "pull"

  validation {
    condition     = contains(["pull", "push"], var.projector_mode)
    error_message = "projector_mode is pull or push."
  }
}

variable "projector_instances" {
  description = "pull: the number of instances; 0 stops projecting. push: the maximum number of instances."
  type        = number
  default     = 1

  validation {
    condition     = var.projector_instances >= (var.projector_mode == "push" ? 1 : 0) && floor(var.projector_instances) == var.projector_instances
    error_message = "projector_instances is a whole number: at least 0 for pull, at least 1 for push."
  }
}

variable "projector_limits" {
  description = "CPU and memory of one instance of the projector."
  type        = object({ cpu = string, memory = string })
  default     = { cpu = "1", memory = "512Mi" }
}

variable "dashboard_enabled" {
  description = "Whether there is a service that shows the runs, behind Identity-Aware Proxy."
  type        = bool
  default     = false
}

variable "dashboard_members" {
  description = "Who may look, such as group:team@example.com or domain:example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = !anytrue([for member in var.dashboard_members : startswith(member, "all")])
    error_message = "dashboard_members are users, groups, domains and service accounts: not allUsers, not allAuthenticatedUsers."
  }
}

variable "dashboard_answering_members" {
  description = "Who may also answer paused runs, in a service of its own. Empty: nobody, and there is none."
  type        = set(string)
  default     = []

  validation {
    condition     = !anytrue([for member in var.dashboard_answering_members : startswith(member, "all")])
    error_message = "dashboard_answering_members are users, groups, domains and service accounts: not allUsers, not allAuthenticatedUsers."
  }
}

variable "archive_enabled" {
  description = "Whether every event is also written to a bucket."
  type        = bool
  default     = true
}

variable "archive_bucket" {
  description = "The name of that bucket; null: PROJECT-NAME-archive."
  type        = string
  default     = null
}

variable "archive_locked_days" {
  description = "How many days nobody can delete or overwrite an archived file; null: replaced versions are kept instead."
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

variable "warehouse_enabled" {
  description = "Whether every event is also written to BigQuery, with views over all runs."
  type        = bool
  default     = false
}

variable "warehouse_location" {
  description = "The location of the BigQuery dataset, such as EU or europe-west1; null: the region. It cannot be changed later."
  type        = string
  default     = null
}

variable "warehouse_retention_days" {
  description = "How many days BigQuery keeps an event after it was published; null: for ever."
  type        = number
  default     = null

  validation {
    condition     = var.warehouse_retention_days == null ? true : var.warehouse_retention_days >= 1 && floor(var.warehouse_retention_days) == var.warehouse_retention_days
    error_message = "warehouse_retention_days is a whole number of 1 or more, or null."
  }
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
