-- Every message, read as run-log reads it. Of a message that states no event, left_out says why.

WITH texts AS (
  SELECT
    message_id,
    publish_time,
    COALESCE(JSON_VALUE(attributes, '$."ce-type"'), '') AS type_of_message,
    -- JSON allows half a surrogate pair as an escape, and run-log writes it. BigQuery would refuse the whole text.
    REGEXP_REPLACE(
      SAFE_CAST(data AS STRING),
      r'(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|^\x{FEFF}',
      r'\1'
    ) AS text
  FROM `${dataset}.messages`
),

-- As JSON: of a text, JSON_VALUE would return each character beyond 16 bits as two unknown ones.
bodies AS (
  SELECT *, SAFE.PARSE_JSON(text, wide_number_mode => 'round') AS json
  FROM texts
),

objects AS (
  SELECT *, IF(LOWER(JSON_TYPE(json)) = 'object', json, NULL) AS body
  FROM bodies
),

versions AS (
  SELECT
    *,
    SAFE_CAST(
      REGEXP_EXTRACT(
        COALESCE(JSON_VALUE(body, '$.type'), type_of_message),
        r'^run-log\.run-state\.v([0-9]{1,9})$'
      ) AS INT64
    ) AS major
  FROM objects
),

-- Version 0 is a bare run. Since version 1, an event is around it.
states AS (
  SELECT *, IF(major = 0, body, JSON_QUERY(body, '$.run')) AS run
  FROM versions
),

fields AS (
  SELECT
    *,
    JSON_VALUE(run, '$.workflow_id') AS workflow_id,
    JSON_VALUE(run, '$.id') AS run_id,
    IF(JSON_VALUE(run, '$.attempt') IS NULL, 1, SAFE_CAST(JSON_VALUE(run, '$.attempt') AS INT64)) AS attempt,
    JSON_VALUE(run, '$.status') AS status,
    JSON_VALUE(run, '$.trigger_type') AS trigger_type,
    IF(LOWER(JSON_TYPE(JSON_QUERY(run, '$.pause'))) = 'object', JSON_QUERY(run, '$.pause'), NULL) AS pause,
    -- Beyond microseconds, which is all that BigQuery reads, nothing is compared.
    REGEXP_REPLACE(JSON_VALUE(run, '$.started_at'), r'(\.[0-9]{6})[0-9]+', r'\1') AS started_text,
    REGEXP_REPLACE(JSON_VALUE(run, '$.completed_at'), r'(\.[0-9]{6})[0-9]+', r'\1') AS completed_text,
    REGEXP_REPLACE(JSON_VALUE(body, '$.occurred_at'), r'(\.[0-9]{6})[0-9]+', r'\1') AS occurred_text,
    IF(JSON_VALUE(run, '$.duration_ms') IS NULL, 0, SAFE_CAST(JSON_VALUE(run, '$.duration_ms') AS FLOAT64)) AS duration
  FROM states
),

times AS (
  SELECT
    *,
    SAFE_CAST(started_text AS TIMESTAMP) AS started_at,
    SAFE_CAST(completed_text AS TIMESTAMP) AS completed_at,
    IF(major = 0, COALESCE(completed_text, started_text), occurred_text) AS event_text
  FROM fields
),

-- A bare run has no identity and no version: both follow from what it says.
identities AS (
  SELECT
    *,
    SAFE_CAST(event_text AS TIMESTAMP) AS occurred_at,
    IF(major = 0, CONCAT('v0-', TO_HEX(SHA256(text))), JSON_VALUE(body, '$.event_id')) AS event_id,
    IF(
      major = 0,
      -- Not exactly: versions that are stored were rounded like this.
      CAST(TRUNC(UNIX_MICROS(GREATEST(started_at, COALESCE(completed_at, started_at))) / 1000000 * 1000000) AS INT64)
      + CASE status WHEN 'pending' THEN 0 WHEN 'running' THEN 1 WHEN 'paused' THEN 2 ELSE 3 END,
      SAFE_CAST(JSON_VALUE(body, '$.hlc') AS INT64)
    ) AS hlc
  FROM times
)

SELECT
  message_id,
  publish_time,
  CASE
    WHEN body IS NULL THEN 'undecodable'
    WHEN major IS NULL THEN 'unknown_type'
    WHEN major > 1 THEN 'unsupported_version'
    WHEN NOT IFNULL(
      -- A number is no id, and a list is no object. DuckDB has other names of the types.
      LOWER(JSON_TYPE(JSON_QUERY(run, '$.workflow_id'))) IN ('string', 'varchar')
      AND LOWER(JSON_TYPE(JSON_QUERY(run, '$.id'))) IN ('string', 'varchar')
      AND IFNULL(LOWER(JSON_TYPE(JSON_QUERY(body, '$.event_id'))) IN ('string', 'varchar'), major = 0)
      AND IFNULL(LOWER(JSON_TYPE(JSON_QUERY(run, '$.trigger_data'))) IN ('object', 'null'), TRUE)
      AND IFNULL(LOWER(JSON_TYPE(JSON_QUERY(run, '$.result'))) IN ('object', 'null'), TRUE)
      AND LENGTH(workflow_id) > 0
      AND LENGTH(run_id) > 0
      AND REGEXP_CONTAINS(event_id, r'^[!-~]{1,128}$')
      AND hlc >= 0
      AND attempt BETWEEN 1 AND 2147483647
      AND status IN ('pending', 'running', 'success', 'failed', 'skipped', 'cancelled', 'paused')
      AND REGEXP_CONTAINS(trigger_type, r'^[a-z][a-z0-9_.-]{0,63}$')
      AND occurred_at IS NOT NULL
      AND started_at IS NOT NULL
      AND (completed_at IS NULL) = (completed_text IS NULL)
      -- Without a time zone, nobody knows when it was.
      AND REGEXP_CONTAINS(event_text, r'(Z|z|[+-][0-9]{2}:?[0-9]{2})$')
      AND REGEXP_CONTAINS(started_text, r'(Z|z|[+-][0-9]{2}:?[0-9]{2})$')
      AND REGEXP_CONTAINS(COALESCE(completed_text, 'Z'), r'(Z|z|[+-][0-9]{2}:?[0-9]{2})$')
      AND duration IS NOT NULL,
      FALSE
    ) THEN 'invalid_event'
    -- Nothing with a correct clock could come after an event that is stamped more than a day ahead.
    WHEN hlc - UNIX_MICROS(publish_time) > 86400000000 THEN 'clock_ahead'
  END AS left_out,
  workflow_id,
  run_id,
  attempt,
  hlc,
  event_id,
  occurred_at,
  IFNULL(JSON_VALUE(body, '$.inferred') = 'true', FALSE) AS inferred,
  -- It only says that a running run is alive.
  IFNULL(JSON_VALUE(body, '$.is_progress') = 'true', FALSE) AND status = 'running' AS is_progress,
  status,
  status IN ('success', 'failed', 'skipped', 'cancelled') AS is_ended,
  trigger_type,
  started_at,
  completed_at,
  GREATEST(duration, 0) AS duration_ms,
  JSON_VALUE(run, '$.error') AS error,
  JSON_VALUE(run, '$.error_type') AS error_type,
  IF(LOWER(JSON_TYPE(JSON_QUERY(run, '$.labels'))) = 'object', JSON_QUERY(run, '$.labels'), JSON '{}') AS labels,
  JSON_VALUE(run, '$.parent.workflow_id') AS parent_workflow_id,
  JSON_VALUE(run, '$.parent.run_id') AS parent_run_id,
  JSON_VALUE(run, '$.trace_id') AS trace_id,
  SAFE_CAST(JSON_VALUE(run, '$.progress.fraction') AS FLOAT64) AS progress_fraction,
  JSON_VALUE(run, '$.progress.text') AS progress_text,
  pause,
  -- Every later state repeats the answer to a pause. While a run is paused, nobody has answered.
  IF(status = 'paused', NULL, NULLIF(JSON_VALUE(pause, '$.answered_by'), '')) AS answered_by,
  IF(status = 'paused', NULL, NULLIF(JSON_VALUE(pause, '$.choice'), '')) AS choice,
  IF(status = 'paused', NULL, NULLIF(JSON_VALUE(pause, '$.comment'), '')) AS comment,
  IF(
    status = 'paused' OR TO_JSON_STRING(JSON_QUERY(pause, '$.values')) IN ('null', '{}'),
    NULL,
    JSON_QUERY(pause, '$.values')
  ) AS answer_values,
  IF(LOWER(JSON_TYPE(JSON_QUERY(run, '$.trigger_data'))) = 'object', JSON_QUERY(run, '$.trigger_data'), JSON '{}') AS trigger_data,
  IF(LOWER(JSON_TYPE(JSON_QUERY(run, '$.result'))) = 'object', JSON_QUERY(run, '$.result'), JSON '{}') AS result,
  JSON_QUERY(body, '$.steps') AS steps,
  text
FROM identities
