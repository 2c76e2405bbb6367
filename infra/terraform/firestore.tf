resource "google_firestore_database" "main" {
  project                           = var.project_id
  name                              = var.database_name
  location_id                       = var.database_location
  type                              = "FIRESTORE_NATIVE"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = var.point_in_time_recovery ? "POINT_IN_TIME_RECOVERY_ENABLED" : "POINT_IN_TIME_RECOVERY_DISABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
}

# The same as ../firestore.indexes.json. A test compares both with each other and with the queries.
locals {
  runs    = "runs"
  notices = "notices"
  ttl     = "expire_at"

  composite_indexes = [
    { query_scope = "COLLECTION", fields = [["status", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["status", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["trigger_type", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["trigger_type", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["status", "ASCENDING"], ["trigger_type", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["status", "ASCENDING"], ["trigger_type", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["labels", "CONTAINS"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["labels", "CONTAINS"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["parent.workflow_id", "ASCENDING"], ["parent.run_id", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["parent.workflow_id", "ASCENDING"], ["parent.run_id", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["error_type", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["error_type", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["projection.paused_assignee", "ASCENDING"], ["projection.paused_started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION", fields = [["projection.paused_assignee", "ASCENDING"], ["projection.paused_deadline", "ASCENDING"]] },
    { query_scope = "COLLECTION", fields = [["projection.changed_shard", "ASCENDING"], ["projection.changed_at", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["status", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["labels", "CONTAINS"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["parent.workflow_id", "ASCENDING"], ["parent.run_id", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["parent.workflow_id", "ASCENDING"], ["parent.run_id", "ASCENDING"], ["started_at", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["error_type", "ASCENDING"], ["started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.paused_started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.paused_deadline", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.paused_assignee", "ASCENDING"], ["projection.paused_started_at", "DESCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.paused_assignee", "ASCENDING"], ["projection.paused_deadline", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.active_since", "ASCENDING"]] },
    { query_scope = "COLLECTION_GROUP", fields = [["projection.changed_shard", "ASCENDING"], ["projection.changed_at", "ASCENDING"]] },
  ]

  # Only what is listed is indexed. So payloads cost nothing, and writers of different workflows share no index.
  unindexed_collections = [var.root_collection, "stats", local.runs]

  single_field_indexes = {
    "started_at"                   = [["COLLECTION", "ASCENDING"], ["COLLECTION", "DESCENDING"]]
    "projection.active_since"      = [["COLLECTION", "ASCENDING"]]
    "projection.paused_deadline"   = [["COLLECTION", "ASCENDING"]]
    "projection.paused_started_at" = [["COLLECTION", "DESCENDING"]]
  }
}

resource "google_firestore_index" "runs" {
  for_each = {
    for index in local.composite_indexes :
    join(" ", [index.query_scope, join(" ", [for field in index.fields : join(" ", field)])]) => index
  }

  project     = var.project_id
  database    = google_firestore_database.main.name
  collection  = local.runs
  query_scope = each.value.query_scope

  dynamic "fields" {
    for_each = each.value.fields

    content {
      field_path   = fields.value[0]
      order        = fields.value[1] == "CONTAINS" ? null : fields.value[1]
      array_config = fields.value[1] == "CONTAINS" ? "CONTAINS" : null
    }
  }
}

resource "google_firestore_field" "unindexed" {
  for_each = toset(local.unindexed_collections)

  project    = var.project_id
  database   = google_firestore_database.main.name
  collection = each.value
  field      = "*"

  index_config {}
}

resource "google_firestore_field" "indexed" {
  for_each = local.single_field_indexes

  project    = var.project_id
  database   = google_firestore_database.main.name
  collection = local.runs
  field      = each.key

  index_config {
    dynamic "indexes" {
      for_each = each.value

      content {
        query_scope = indexes.value[0]
        order       = indexes.value[1]
      }
    }
  }
}

# It increases with time, so an index on it would be hot.
resource "google_firestore_field" "ttl" {
  project    = var.project_id
  database   = google_firestore_database.main.name
  collection = local.runs
  field      = local.ttl

  index_config {}

  ttl_config {}
}

resource "google_firestore_field" "notices_ttl" {
  project    = var.project_id
  database   = google_firestore_database.main.name
  collection = local.notices
  field      = local.ttl

  index_config {}

  ttl_config {}
}
