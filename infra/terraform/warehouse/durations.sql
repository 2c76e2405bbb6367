-- How long each workflow's runs took that succeeded or failed, by the day on which they started, in UTC.

WITH ranked AS (
  SELECT
    workflow_id,
    DATE(started_at, 'UTC') AS day,
    took_ms,
    ROW_NUMBER() OVER (PARTITION BY workflow_id, DATE(started_at, 'UTC') ORDER BY took_ms) AS position,
    COUNT(*) OVER (PARTITION BY workflow_id, DATE(started_at, 'UTC')) AS runs
  FROM `${dataset}.runs`
  WHERE took_ms IS NOT NULL
)

SELECT
  workflow_id,
  day,
  COUNT(*) AS runs,
  SUM(took_ms) AS total_ms,
  AVG(took_ms) AS mean_ms,
  MIN(IF(100 * position >= 50 * runs, took_ms, NULL)) AS p50_ms,
  MIN(IF(100 * position >= 95 * runs, took_ms, NULL)) AS p95_ms,
  MIN(IF(100 * position >= 99 * runs, took_ms, NULL)) AS p99_ms,
  MAX(took_ms) AS max_ms
FROM ranked
GROUP BY workflow_id, day
