-- Every run's steps, each in its newest state, the newest 100.

WITH told AS (
  SELECT
    workflow_id,
    run_id,
    step,
    JSON_VALUE(step, '$.key') AS key,
    JSON_VALUE(step, '$.parent') AS parent,
    JSON_VALUE(step, '$.name') AS name,
    IF(JSON_VALUE(step, '$.attempt') IS NULL, 1, SAFE_CAST(JSON_VALUE(step, '$.attempt') AS INT64)) AS attempt,
    JSON_VALUE(step, '$.status') AS status,
    SAFE_CAST(JSON_VALUE(step, '$.started_at') AS TIMESTAMP) AS started_at,
    SAFE_CAST(JSON_VALUE(step, '$.ended_at') AS TIMESTAMP) AS ended_at,
    JSON_VALUE(step, '$.error') AS error,
    IF(LOWER(JSON_TYPE(JSON_QUERY(step, '$.attributes'))) = 'object', JSON_QUERY(step, '$.attributes'), JSON '{}') AS attributes,
    SAFE_CAST(JSON_VALUE(step, '$.version') AS INT64) AS version
  -- Not of events: an event that another one of its version has beaten tells of its steps all the same.
  FROM `${dataset}.decoded`
  CROSS JOIN UNNEST(JSON_QUERY_ARRAY(steps, '$')) AS step
  WHERE left_out IS NULL
),

newest AS (
  SELECT *
  FROM told
  WHERE
    REGEXP_CONTAINS(key, r'^[!-~]{1,64}$')
    AND name IS NOT NULL
    AND attempt >= 1
    AND status IN ('running', 'success', 'failed', 'cancelled')
    AND started_at IS NOT NULL
    AND version >= 0
  QUALIFY ROW_NUMBER() OVER (PARTITION BY workflow_id, run_id, key ORDER BY version DESC, TO_JSON_STRING(step) DESC) = 1
),

kept AS (
  SELECT *
  FROM newest
  WHERE TRUE
  QUALIFY ROW_NUMBER() OVER (PARTITION BY workflow_id, run_id ORDER BY version DESC, key DESC) <= 100
),

attempts AS (
  SELECT workflow_id, run_id, attempt, MIN(IF(hlc = 0, UNIX_MICROS(occurred_at), hlc)) AS began
  FROM `${dataset}.transitions`
  GROUP BY workflow_id, run_id, attempt
),

-- A running step whose run has ended, or was tried again since, is shown as cancelled.
lives AS (
  SELECT
    kept.*,
    kept.status = 'running'
    AND (runs.is_ended OR runs.attempt > 1 AND kept.version < COALESCE(attempts.began, runs.hlc)) AS is_outlived
  FROM kept
  INNER JOIN `${dataset}.runs` AS runs
    ON kept.workflow_id = runs.workflow_id AND kept.run_id = runs.run_id
  LEFT JOIN attempts
    ON runs.workflow_id = attempts.workflow_id AND runs.run_id = attempts.run_id AND runs.attempt = attempts.attempt
)

SELECT
  workflow_id,
  run_id,
  key,
  parent,
  name,
  attempt,
  IF(is_outlived, 'cancelled', status) AS status,
  started_at,
  ended_at,
  GREATEST(UNIX_MICROS(ended_at) - UNIX_MICROS(started_at), 0) / 1000 AS took_ms,
  IF(is_outlived, 'never ended: its run has ended, or was tried again', error) AS error,
  attributes,
  version
FROM lives
